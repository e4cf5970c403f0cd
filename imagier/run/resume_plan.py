"""Where a run begins: its folder, its seed, and the checkpoint it begins from."""

from __future__ import annotations

import argparse
import logging
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagier.errors import UserError
from imagier.run.reference_checkpoint import translated
from imagier.train import checkpoint
from imagier.train.checkpoint_files import LATEST, CheckpointFiles, RetentionPolicy, listed, pointed
from imagier.train.disk import remove_temporaries
from imagier.train.hooks import images, profile
from imagier.train.manifest import Entry
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer
from imagier.train.view import averages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePlan:
    """What is decided before anything is built."""

    logdir: Path
    seed: int
    path: Path | None = None
    state: dict[str, Any] | None = None
    continues: bool = False
    """All of the checkpoint counts, not its weights alone."""
    init_from: str | None = None
    """The --checkpoint with which the run began, in this process or in one before; by it a run is known again."""
    skipped: tuple[Path, ...] = ()
    """Later checkpoints, which cannot be read."""
    notes: tuple[str, ...] = ()
    """What is to be told about them."""

    @staticmethod
    def resolve(args: argparse.Namespace, runtime: Runtime) -> ResumePlan:
        """A given checkpoint, else the latest of the log folder, else nothing. UserError if a given one is missing.

        A run that began with a given one and was started again goes on from its own latest.
        """
        logdir = args.logdir or _new_folder(args, runtime)
        seed = runtime.broadcast(random.SystemRandom().randint(0, 10000)) if args.randomized_seed else args.seed
        found, continues = _chosen(args, logdir, runtime)
        if found is None:
            return ResumePlan(logdir, seed)
        path, state = found.path, found.state
        if not continues:
            if (logdir / LATEST).exists():
                raise UserError(
                    "holds another run, whose log would be lost",
                    where=logdir,
                    advice="choose another --logdir, or --resume 1",
                )
            return ResumePlan(logdir, seed, path, state, init_from=_text(args.checkpoint))
        extras = state.get("extras", {})
        # The data order and all noise follow from the seed: a continued run keeps it.
        seed = int(extras.get("seed", seed))
        init_from = _text(args.checkpoint) or extras.get("init_from")
        return ResumePlan(logdir, seed, path, state, True, init_from, found.skipped, found.notes)

    def restore(self, trainer: Trainer, *, strict: bool) -> dict[str, Any]:
        """Loads the checkpoint into a trainer, once; returns what the hooks kept in it, nothing for a new run.

        strict: every tensor must match; else those that do not are told. UserError if the checkpoint does not fit.
        """
        if self.path is None or self.state is None:
            return {}
        networks, averaged = trainer.recipe.networks, averages(trainer)
        optimizers = {name: player.optimizer for name, player in trainer.players.items() if self.continues}
        state, notes = translated(self.state, networks, averaged, optimizers, self.path)
        for note in notes:
            logger.info(note)
        continues = self.continues and all("optimizer" in player for player in state["players"].values())
        if self.continues and not continues:
            logger.info(f"{self.path.name}: holds no state of optimizers: its weights begin a new run")
        try:
            state, misfits = checkpoint.fitted(state, networks, averaged, self.path, strict=True)
        except UserError:
            if not continues and self._warm_start(trainer, state):
                return {}
            state, misfits = checkpoint.fitted(state, networks, averaged, self.path, strict=strict)
        for line in misfits:
            logger.info(line)
        kept = checkpoint.restore(trainer, state, self.path) if continues else {}
        if not continues:
            checkpoint.restore_weights(trainer, state, self.path)
        self.state.clear()  # a mapped file keeps its room on the disk after it was removed
        return kept

    def _warm_start(self, trainer: Trainer, state: Mapping[str, Any]) -> bool:
        """Whether the generator could take over a smaller one's weights; the discriminator begins anew."""
        left = trainer.recipe.warm_start(state["players"].get("gen", {}).get("network", {}))
        if not left:
            return False
        logger.info(f"{self.path}: a coarser generator's weights; with first values begin {', '.join(left)}")
        average = trainer.players["gen"].average
        if average is not None:
            average.restart()
        return True

    def kept(self) -> dict[str, Any]:
        """What checkpoints keep of it."""
        return {"seed": self.seed, "init_from": self.init_from}

    def files(self, keep: RetentionPolicy) -> CheckpointFiles:
        """What this run's checkpoints are added to. Removes what a process that was killed left behind.

        From here on latest_checkpoint.txt names the checkpoint that the run goes on from.
        """
        for folder in (self.logdir, self.logdir / images.FOLDER, self.logdir / profile.FOLDER):
            remove_temporaries(folder)
        entries: list[Entry] = []
        if self.continues:
            entries, notes = listed(self.logdir, [path.name for path in self.skipped])
            for note in notes:
                logger.info(note)
        files = CheckpointFiles(self.logdir, keep, entries)
        if self.continues and self.path is not None and self.path.parent == self.logdir:
            files.last_good = self.path.name
            if pointed(self.logdir) != self.path:
                files.point(self.path.name)
        return files

    def __str__(self) -> str:
        if self.path is None:
            what = "a new run"
        else:
            what = f"continues from {self.path.name}" if self.continues else f"begins with the weights of {self.path}"
        return f"{self.logdir}: {what}; seed {self.seed}"


def _new_folder(args: argparse.Namespace, runtime: Runtime) -> Path:
    """A folder by the time. UserError where the run may be started again, and would not find it."""
    if _number("TORCHELASTIC_MAX_RESTARTS"):
        raise UserError(
            "--logdir is missing: ranks that torchrun starts again must find their run", advice="name its folder"
        )
    if _number("SLURM_RESTART_COUNT"):
        raise UserError("--logdir is missing: a job that is queued again must find its run", advice="name its folder")
    stem = args.config.stem if args.config is not None else "run"
    return Path(runtime.broadcast(f"logs/{time.strftime('%Y_%m%d_%H%M_%S')}_{stem}"))


def _chosen(args: argparse.Namespace, logdir: Path, runtime: Runtime) -> tuple[checkpoint.Found | None, bool]:
    """The checkpoint to begin from, and whether all of it counts.

    With --checkpoint FILE and --resume 1 a person may go back to it; a launcher that starts the run again does not.
    """
    if args.checkpoint is None:
        return newest(logdir, runtime), args.resume != 0
    is_restart = _number("TORCHELASTIC_RESTART_COUNT") or _number("SLURM_RESTART_COUNT")
    own = newest(logdir, runtime) if args.resume != 1 or is_restart else None
    if own is not None and own.state.get("extras", {}).get("init_from") == str(args.checkpoint):
        return own, True
    return _named(args.checkpoint), args.resume == 1


def _number(name: str) -> int:
    """What a launcher's environment says."""
    return int(os.environ.get(name) or 0)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def newest(logdir: Path, runtime: Runtime) -> checkpoint.Found | None:
    """The checkpoint that a folder's run goes on from: the first rank looks for it, the others take the same."""
    found, problem = None, None
    if runtime.is_main:
        try:
            found = checkpoint.newest(logdir)
        except UserError as error:
            problem = str(error)
    path, problem = runtime.broadcast((None if found is None else found.path, problem))
    if problem is not None:
        raise UserError(problem)
    return found if found is not None or path is None else _named(path)


def _named(path: Path) -> checkpoint.Found:
    return checkpoint.Found(path, checkpoint.load(path))
