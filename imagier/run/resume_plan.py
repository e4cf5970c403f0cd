"""Where a run starts from: its folder, its seed and its checkpoint, decided before anything is built."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagier.errors import UserError
from imagier.run.options import TRAIN_SEED, RunOptions
from imagier.run.reference_checkpoint import translate_reference
from imagier.train import checkpoint
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.checkpoint_files import LATEST
from imagier.train.finite import find_nonfinite
from imagier.train.fit_state import fit_state
from imagier.train.launcher import read_number
from imagier.train.manifest import read_or_scan
from imagier.train.ranks import raise_on_all_ranks
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer
from imagier.train.view import collect_averages

logger = logging.getLogger(__name__)


MOST_CAUSES = 3
"""Changed keys that an error names."""

_CAUSES = (
    "trainer.type",
    "trainer.model_average_config",
    "data.type",
    "data.input_",
    "data.one_hot_num_classes",
    "data.use_dont_care",
    "data.full_data_ops",
    "data.train.augmentations",
)
"""Keys that change networks, beside those of their own sections."""


@dataclass(frozen=True)
class ResumePlan:
    """What a run starts from. The same on all ranks."""

    logdir: Path
    seed: int
    checkpoint: Path | None = None
    """None: a new run with initial weights."""
    is_resume: bool = False
    """True: the run that wrote the checkpoint goes on. False: its weights start a new run."""
    init_from: str | None = None
    """The checkpoint that the run was first started with, by this process or an earlier one. A restart finds its own
    run by it."""
    skipped: tuple[Path, ...] = ()
    """Later checkpoints that cannot be read."""
    notes: tuple[str, ...] = ()
    """Lines about these."""

    @staticmethod
    def resolve(options: RunOptions, logdir: Path, runtime: Runtime) -> tuple[ResumePlan, FoundCheckpoint | None]:
        """The given checkpoint, else the latest of the log folder, else none. UserError if a given one is missing.

        Also returns its content, for `restore`: it is read once, and the plan does not keep it.

        A run that was first started from a given one, and is restarted, continues from its own latest. logdir: as of
        `choose_logdir`.
        """
        seed = _choose_seed(options, runtime)
        found, is_resume = _choose_checkpoint(options, logdir, runtime)
        if found is None:
            return ResumePlan(logdir, seed), None
        given = None if options.checkpoint is None else str(Path(options.checkpoint))
        if not is_resume:
            if (logdir / LATEST).exists() or read_or_scan(logdir):
                raise UserError(
                    "holds another run, whose log would be lost",
                    where=logdir,
                    advice="choose another `logdir`, or continue that run (`resume=True`)",
                    code="logdir-in-use",
                )
            return ResumePlan(logdir, seed, found.path, init_from=given), found
        extras = found.state.get("extras", {})
        plan = ResumePlan(
            logdir,
            int(extras.get("seed", seed)),  # the order of the data and all noise follow from it
            found.path,
            is_resume=True,
            init_from=given or extras.get("init_from"),
            skipped=found.skipped,
            notes=found.notes,
        )
        return plan, found

    def restore(
        self, trainer: Trainer, found: FoundCheckpoint | None, changes: Sequence[str] = (), *, strict: bool
    ) -> dict[str, Any]:
        """Loads the checkpoint into a trainer; returns what the hooks kept in it, nothing for a new run.

        found: the checkpoint, as of `resolve`. changes: what the config has changed since, for the error. strict: every
        tensor must match; otherwise those that do not are logged. UserError if the checkpoint does not fit.
        """
        if found is None:
            return {}
        path = found.path
        networks, averaged = trainer.recipe.networks, collect_averages(trainer)
        optimizers = {name: player.optimizer for name, player in trainer.players.items() if self.is_resume}
        state, notes = translate_reference(found.state, networks, averaged, optimizers, path)
        is_resume = self.is_resume and all("optimizer" in player for player in state["players"].values())
        if self.is_resume and not is_resume:
            notes.append(f"{path.name}: holds no optimizer state: a new run starts from its weights")
        for note in notes:
            logger.info(note)
        try:
            state, misfits = fit_state(state, networks, averaged, path, strict=True)
        except UserError:
            if not is_resume and _warm_start(trainer, state, path):
                return {}
            with _name_changes(changes, networks):
                state, misfits = fit_state(state, networks, averaged, path, strict=strict)
        for line in misfits:
            logger.info(line)
        if is_resume:
            return checkpoint.restore(trainer, state, path)
        checkpoint.restore_weights(trainer, state, path)
        return {}

    @property
    def extras(self) -> dict[str, Any]:
        """What checkpoints keep of the plan."""
        return {"seed": self.seed, "init_from": self.init_from}

    def __str__(self) -> str:
        if self.checkpoint is None:
            what = "a new run"
        elif self.is_resume:
            what = f"continues from {self.checkpoint.name}"
        else:
            what = f"starts from the weights of {self.checkpoint}"
        return f"{self.logdir}: {what}; seed {self.seed}"


def find_newest(logdir: Path, runtime: Runtime) -> FoundCheckpoint | None:
    """The checkpoint that a folder's run continues from: the first rank looks for it, the others take the same."""
    found = None
    with raise_on_all_ranks(runtime):
        if runtime.is_main:
            found = checkpoint.find_newest(logdir)
    path = runtime.broadcast(None if found is None else found.path)
    return found if found is not None or path is None else _load(path)


def choose_logdir(options: RunOptions, runtime: Runtime, name: str) -> Path:
    """The folder of a run: the one that is given, else one by the time and the name of the experiment.

    UserError if none is given where a launcher may restart the run, and would not find it.
    """
    if options.logdir is not None:
        return Path(options.logdir)
    where, code = "logdir", "missing-logdir"
    if read_number("TORCHELASTIC_MAX_RESTARTS", 0):
        what = "missing: processes that torchrun restarts must find their run"
        raise UserError(what, where=where, advice="name its folder", code=code)
    if read_number("SLURM_RESTART_COUNT", 0):
        what = "missing: a job that Slurm restarts must find its run"
        raise UserError(what, where=where, advice="name its folder", code=code)
    return Path(runtime.broadcast(f"logs/{time.strftime('%Y_%m%d_%H%M_%S')}_{name}"))


def _choose_seed(options: RunOptions, runtime: Runtime) -> int:
    if options.randomized_seed:
        return runtime.broadcast(random.SystemRandom().randint(0, 10000))
    return TRAIN_SEED if options.seed is None else options.seed


def _choose_checkpoint(options: RunOptions, logdir: Path, runtime: Runtime) -> tuple[FoundCheckpoint | None, bool]:
    """The checkpoint to start from, and whether its run continues.

    With a checkpoint and `resume=True` a person may go back to it; a launcher that restarts the run does not.
    """
    is_requeued = read_number("SLURM_RESTART_COUNT", 0) > 0
    if options.checkpoint is None:
        # What a job finds that Slurm starts again is its own: a folder of another run would have ended it. (torchrun
        # restarts its ranks after such an error, too.)
        return find_newest(logdir, runtime), options.resume is not False or is_requeued
    path = Path(options.checkpoint)
    is_restart = is_requeued or read_number("TORCHELASTIC_RESTART_COUNT", 0) > 0
    own = find_newest(logdir, runtime) if not options.resume or is_restart else None
    if own is not None and own.state.get("extras", {}).get("init_from") == str(path):
        return own, True
    return _load(path), options.resume is True


def _load(path: Path) -> FoundCheckpoint:
    return FoundCheckpoint(path, checkpoint.load(path))


@contextmanager
def _name_changes(changes: Sequence[str], networks: Iterable[str]) -> Iterator[None]:
    """Adds to a UserError what has changed in the config, if that may be its cause."""
    keys = (*_CAUSES, *(f"{name}." for name in networks))
    try:
        yield
    except UserError as error:
        causes = [change for change in changes if change.startswith(keys)]
        if causes and error.code == "checkpoint-mismatch":
            shown = ", ".join(causes[:MOST_CAUSES])
            error.advice = f"the config has changed: {shown}{', ...' if len(causes) > MOST_CAUSES else ''}"
        raise


def _warm_start(trainer: Trainer, state: Mapping[str, Any], path: Path) -> bool:
    """Whether the generator could take the weights of a coarser one; the discriminator keeps its first weights."""
    name = trainer.recipe.generator_name
    weights = state["players"].get(name, {}).get("network", {})
    if find_nonfinite(weights):
        return False  # which is then reported
    left = trainer.recipe.warm_start(weights)
    if not left:
        return False
    logger.info(f"{path}: holds the weights of a smaller generator; newly initialized: {', '.join(left)}")
    average = trainer.players[name].average
    if average is not None:
        average.restart()
    return True
