"""Searches for the values of a config's keys that make the best run: trial after trial, each an ordinary training."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from imagier.config.load import dump, load
from imagier.config.schema import BIG, Run
from imagier.errors import RunError, UserError, hide_secrets
from imagier.run import status
from imagier.run.experiment import CONFIG, read_experiment
from imagier.run.folder_lock import unwritable
from imagier.run.options import RunOptions
from imagier.run.stopping import SlurmJob, Stop, handle_signals
from imagier.run.sweep_result import SweepResult, summarize
from imagier.run.sweep_space import Range, Value, format_override, read_space
from imagier.run.sweep_trial import Objective, Training, choose_objective
from imagier.run.workers import count_cores
from imagier.train.checkpoint_files import LATEST
from imagier.train.disk import describe_error, write_atomic
from imagier.train.hooks import files
from imagier.train.trainer import Outcome

if TYPE_CHECKING:
    from imagier.run.sweep_study import Claim, Trials

logger = logging.getLogger(__name__)

BASE, SETTINGS, BEST = "base.yaml", "sweep.yaml", "best.yaml"
"""In the folder of a sweep: its config, what else all of its trials have in common, and the config of the best one."""

POLL_S = 0.5
"""Between two looks at the trainings."""

MOST_FAILURES = 3
"""A sweep ends if so many trials of a process fail before one of all succeeds."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What a caller asks of a sweep, beside its config."""

    space: Path
    """A YAML of keys of the config, each with a range."""
    logdir: Path
    """The folder of the sweep, new or old; others may work in it at the same time."""
    trials: int = 12
    """How many there are in the end, in all processes."""
    workers: int = 1
    """Trainings at a time, of this process. Several share the cores, unless OMP_NUM_THREADS says how many each has."""
    metric: str | None = None
    """A metric of the run, or the tag of a loss. None: the first metric of the config."""
    pruner: str = "median"
    """median, asha or none: what ends trials early."""
    seed: int = 0
    """Of the values that are tried."""
    storage: str | None = None
    """The address of a database for the trials. None: a journal in the folder."""
    device: str = "auto"


def sweep(config: Path, options: SweepOptions, *, overrides: Sequence[str] = ()) -> SweepResult:
    """Runs trials until there are as many as asked for; writes best.yaml and sweep.png into the folder.

    A sweep that was interrupted or killed continues: trials from their last checkpoints. UserError for a mistake in
    config, space or options, before anything is trained. RunError if the first trials fail.
    """
    experiment = read_experiment(config, RunOptions(), overrides)
    objective = choose_objective(experiment.config, options.metric)
    space = read_space(options.space, config, overrides)
    _require_optuna()
    from imagier.run.sweep_study import Trials, open_database, open_study, translate_storage_errors

    database = None if options.storage is None else open_database(options.storage)
    settings = _Settings(
        space=load(options.space).tree,
        overrides=list(overrides),
        metric=objective.name,
        pruner=options.pruner,
        seed=options.seed,
        storage=None if options.storage is None else hide_secrets(options.storage),
    )
    study = _open_folder(config, options.logdir, settings)
    experiment.log_notes()
    _warn_of_periods(experiment.config.run)
    with translate_storage_errors(options.logdir):
        opened = open_study(
            options.logdir,
            name=study,
            database=database,
            is_maximized=objective.higher_is_better,
            pruner=options.pruner,
            seed=options.seed,
        )
        trials = Trials(options.logdir, opened, space)
        search = _Search(trials, objective, options, overrides, experiment.config.run.max_iter)
        try:
            search.run()
        finally:
            result = summarize(opened.get_trials(deepcopy=False), objective, is_interrupted=search.is_interrupted)
            _write_results(result, options.logdir, space)
    return result


@dataclass(frozen=True)
class _Settings:
    """What all trials of a sweep have in common, beside the config."""

    space: dict[str, Any]
    overrides: list[str]
    metric: str
    pruner: str
    seed: int
    storage: str | None
    """Without passwords."""


def _require_optuna() -> None:
    try:
        import matplotlib  # noqa: F401
        import optuna  # noqa: F401
    except ImportError as error:
        what = f"{error.name} is not installed"
        raise UserError(what, where="imagier sweep", advice="pip install 'imagier[sweep]'", code="no-optuna") from error


def _open_folder(config: Path, logdir: Path, settings: _Settings) -> str:
    """Makes the folder of a sweep, or checks that it is that of this one; returns the name of its study."""
    from filelock import FileLock

    from imagier.run.sweep_study import LOCK

    if (logdir / CONFIG).exists() or (logdir / LATEST).exists():
        advice = "name another `logdir`"
        raise UserError("is the folder of a run, not of a sweep", where=logdir, advice=advice, code="logdir-in-use")
    asked = {**vars(settings), "config": config.read_text(encoding="utf-8-sig")}
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        with FileLock(logdir / LOCK):
            if not (logdir / SETTINGS).exists():
                study = f"{logdir.resolve().name}-{secrets.token_hex(4)}"
                with write_atomic(logdir / BASE) as file:
                    file.write(config.read_bytes())
                with write_atomic(logdir / SETTINGS) as file:
                    file.write(dump({**vars(settings), "study": study}).encode())
            kept = load(logdir / SETTINGS).tree
            kept["config"] = (logdir / BASE).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unwritable(logdir, describe_error(error)) from error
    if changed := [name for name, value in asked.items() if value != kept.get(name)]:
        what = f"holds a sweep with another {' and another '.join(changed)}"
        raise UserError(what, where=logdir, advice="name another `logdir`, or change it back", code="other-sweep")
    return str(kept["study"])


def _warn_of_periods(run: Run) -> None:
    """Logs what a sweep can do only with keys that the config lacks."""
    if run.snapshot_save_iter >= BIG and run.snapshot_save_epoch >= BIG:
        logger.info("without snapshot_save_iter, a trial that is killed starts again from its beginning")


class _Search:
    """The trials that this process works on."""

    def __init__(
        self, trials: Trials, objective: Objective, options: SweepOptions, overrides: Sequence[str], max_iter: int
    ) -> None:
        """max_iter: of the config; a trial may have another."""
        self.trials, self.objective, self.options, self.overrides = trials, objective, options, overrides
        self.max_iter = max_iter
        self.workers: dict[int, _Worker] = {}
        """By their place on this machine."""
        self.stop = Stop(BIG, BIG, job=SlurmJob.from_environment())
        self.gpus = torch.accelerator.device_count()
        self.is_interrupted = False
        self.failures = 0

    def run(self) -> None:
        """Works until nothing is left to do, or it is interrupted."""
        with handle_signals(self.stop), self._kill_at_end():
            while True:
                self.is_interrupted = self.stop(0, 0) is Outcome.INTERRUPTED
                if self.is_interrupted:
                    for worker in self.workers.values():
                        worker.interrupt()
                else:
                    self._start_workers()
                self.workers = {place: worker for place, worker in self.workers.items() if not self._is_over(worker)}
                if not self.workers and (self.is_interrupted or not self._start_workers()):
                    return
                time.sleep(POLL_S)

    def _start_workers(self) -> bool:
        """Takes trials until all workers have one; returns whether any has."""
        for place in range(self.options.workers):
            if place not in self.workers:
                claim = self.trials.claim(self.options.trials)
                if claim is None:
                    break
                self.workers[place] = self._start(claim, place)
        return bool(self.workers)

    def _start(self, claim: Claim, place: int) -> _Worker:
        words = [format_override(key, value) for key, value in claim.values.items()]
        shown = ", ".join(f"{key} {_shorten(value)}" for key, value in claim.values.items())
        how = "continues" if (claim.folder / LATEST).exists() else "starts"
        logger.info(f"{claim.folder.name} {how}: {shown}")
        flags = ["--device", self.options.device, "--single_gpu", "--local_rank", str(place % max(self.gpus, 1))]
        threads = max(1, count_cores() // self.options.workers) if self.options.workers > 1 else None
        training = Training(self.options.logdir / BASE, [*self.overrides, *words], claim.folder, flags, threads)
        return _Worker(claim, training, self.objective, int(str(claim.values.get("max_iter", self.max_iter))))

    def _is_over(self, worker: _Worker) -> bool:
        """Whether a worker is done with its trial, which is then logged. RunError if the sweep is in vain."""
        line = worker.poll()
        if line is None:
            return False
        logger.info(f"{worker.claim.folder.name} {line}" if line else f"{worker.claim.folder.name} is interrupted")
        if worker.has_failed:
            self.failures += 1
            if (self.failures >= MOST_FAILURES or worker.lacks_objective) and not self.trials.has_success():
                raise RunError(f"no trial succeeded; the last one, {worker.claim.folder.name}, {line}")
        return True

    @contextmanager
    def _kill_at_end(self) -> Iterator[None]:
        """Leaves no training behind, however this ends."""
        try:
            yield
        finally:
            for worker in self.workers.values():
                worker.training.kill()
                worker.claim.release()


class _Worker:
    """A trial in this process's hands: its training, and its values so far."""

    def __init__(self, claim: Claim, training: Training, objective: Objective, max_iter: int) -> None:
        self.claim, self.training, self.objective, self.max_iter = claim, training, objective, max_iter
        self.has_failed = False
        self.lacks_objective = False
        """Its training was complete, but did not log what the sweep looks for."""
        self._is_interrupted = False
        self._is_pruned = self._should_prune()  # by a process that was killed before it could say so
        if self._is_pruned:
            training.stop()

    def interrupt(self) -> None:
        """Asks the training to save and end; the trial stays open."""
        self._is_interrupted = True
        self.training.stop()

    def poll(self) -> str | None:
        """None while it trains; else a line about the trial, which is finished, or empty: it was interrupted."""
        ended = self.training.poll()
        self._report()
        if ended is None:
            return None
        if self._is_pruned and not (ended == status.DONE and self._is_at_end()):
            return self._finish_pruned()
        if ended != status.DONE and self._is_interrupted:
            self.claim.release()
            return ""
        return self._finish(ended)

    def _report(self) -> None:
        """Hands on the values of the log, in order, until one says that the trial is not worth going on."""
        for step, value in self.objective.read(self.claim.folder):
            if self._is_pruned:
                return
            if self.claim.last is None or step > self.claim.last[0]:
                self.claim.report(step, value)
                if self._should_prune():
                    self._is_pruned = True
                    self.training.stop()

    def _should_prune(self) -> bool:
        """Whether to stop it: it is worse than others were, and not done anyway, as far as max_iter says."""
        last = self.claim.last
        return last is not None and last[0] < self.max_iter and self.claim.should_prune()

    def _finish_pruned(self) -> str:
        self.claim.finish(None, is_pruned=True)
        assert self.claim.last is not None
        step, value = self.claim.last
        return f"is pruned at iteration {step:,}: {self.objective.name} {value:.4g}"

    def _is_at_end(self) -> bool:
        """Whether the log ends with the last value that is known; a run may end by max_epoch."""
        steps = [record["step"] for record in files.read(self.claim.folder)]
        return self.claim.last is not None and self.claim.last[0] == max(steps)

    def _finish(self, ended: int) -> str:
        last = self.claim.last
        if ended != status.DONE:
            return self._fail(self.training.read_last_line() if ended > 0 else f"it was ended by signal {-ended}")
        if last is None or not self._is_at_end():
            self.lacks_objective = True
            known = sorted({tag for record in files.read(self.claim.folder) for tag in record if "/" in tag})
            return self._fail(
                f"its log has no {self.objective.name} at the end; it has {', '.join(known) or 'nothing'}"
            )
        if not math.isfinite(last[1]):
            return self._fail(f"its {self.objective.name} is {last[1]} at the end")
        self.claim.finish(last[1])
        return f"is complete: {self.objective.name} {last[1]:.4g}"

    def _fail(self, why: str) -> str:
        self.has_failed = True
        self.claim.finish(None, why=why)
        return f"failed: {why}"


def _write_results(result: SweepResult, logdir: Path, space: Mapping[str, Range]) -> None:
    """The config of the best trial, whole and ready to train, and a plot of all."""
    from imagier.run.sweep_plot import draw_sweep

    if result.best is not None:
        text = (logdir / result.best.name / CONFIG).read_text(encoding="utf-8")
        score = f"{result.objective.name} {result.best.value:.6g}"
        with write_atomic(logdir / BEST) as file:
            file.write(f"# {logdir / result.best.name}, the best of its sweep: {score}\n{text}".encode())
    if any(row.curve for row in result.rows):
        draw_sweep(result, space, logdir / "sweep.png")


def _shorten(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
