"""The trials of a sweep, kept by Optuna: which values come next, what is pruned, and which process has which trial."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from imagier.errors import RunError, UserError, hide_secrets
from imagier.run.sweep_space import Range, Value
from imagier.run.sweep_trial import name_trial
from imagier.train.disk import describe_error

JOURNAL = "journal.log"
"""In the folder of a sweep: all of its trials, as Optuna's journal."""

LOCK = "sweep.lock"
"""Held while a process takes a trial."""

STARTUP_TRIALS = 5
"""The first trials take random values; nothing is pruned before so many have finished."""

PRUNERS: Mapping[str, Callable[[], BasePruner]] = {
    "median": lambda: MedianPruner(n_startup_trials=STARTUP_TRIALS),
    "asha": SuccessiveHalvingPruner,
    "none": NopPruner,
}


class SeededSampler(BaseSampler):
    """TPE whose random numbers follow from (seed, trial, key) alone.

    So a sweep that is started again draws what it would have drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The keys that are drawn together: all, once a trial has finished."""
        return self._make_sampler(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of keys that are drawn together."""
        return self._make_sampler(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a key that is drawn alone."""
        return self._make_sampler(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def _make_sampler(self, trial: FrozenTrial, key: str) -> TPESampler:
        digest = hashlib.sha256(f"{self.seed} {trial.number} {key}".encode()).digest()
        return TPESampler(n_startup_trials=STARTUP_TRIALS, seed=int.from_bytes(digest[:4], "big"))


class Claim:
    """A trial that this process has taken. No other process takes it before this one ends."""

    def __init__(self, study: Study, trial: Trial, values: dict[str, Value], lock: FileLock, folder: Path) -> None:
        self.number = trial.number
        self.values = values
        self.folder = folder
        self._study, self._trial, self._lock = study, trial, lock
        self._reported = dict(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    @property
    def last(self) -> tuple[int, float] | None:
        """The last iteration of which a value is known, and the value."""
        return max(self._reported.items(), default=None)

    def report(self, step: int, value: float) -> None:
        """Notes a value, unless that of this iteration is known."""
        if step not in self._reported:
            self._trial.report(value, step)
            self._reported[step] = value

    def should_prune(self) -> bool:
        """Whether the trial is worse than others were at its last value."""
        return bool(self._reported) and self._trial.should_prune()

    def finish(self, value: float | None, *, is_pruned: bool = False, why: str = "") -> None:
        """Ends the trial: with its value, pruned, or failed, which `why` explains."""
        if why:
            self._trial.set_user_attr("why", why)
        state = TrialState.PRUNED if is_pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(self.number, None if is_pruned else value, state)
        self._lock.release()

    def release(self) -> None:
        """Leaves the trial as it is, for whoever continues the sweep."""
        self._lock.release()


class Trials:
    """The trials of a sweep in a folder, which several processes and machines may share."""

    def __init__(self, folder: Path, study: Study, space: Mapping[str, Range]) -> None:
        self.folder, self.study, self.space = folder, study, space

    def claim(self, total: int) -> Claim | None:
        """A trial that nobody works on, or a new one; None if `total` have begun, and others work on the open ones."""
        with FileLock(self.folder / LOCK):
            trials = self.study.get_trials(deepcopy=False)
            for frozen in trials:
                if frozen.state == TrialState.RUNNING and (lock := self._take(frozen.number)) is not None:
                    if self._is_open(frozen.number):
                        return self._complete(Trial(self.study, frozen._trial_id), lock)
                    lock.release()
            if len(trials) >= total:
                return None
            trial = self.study.ask()
            lock = self._take(trial.number)
            assert lock is not None, "a new trial is nobody else's"
            return self._complete(trial, lock)

    def has_success(self) -> bool:
        """Whether any trial, of any process, is complete or pruned."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))

    def _is_open(self, number: int) -> bool:
        """Whether a trial is still open, now that its lock is held: who had it may just have finished it."""
        return self.study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING

    def _take(self, number: int) -> FileLock | None:
        folder = self._folder_of(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "trial.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    def _complete(self, trial: Trial, lock: FileLock) -> Claim:
        """Draws the values that a trial lacks: all of a new one, some of one whose process was killed just then."""
        values = {key: values.suggest(trial, key) for key, values in self.space.items()}
        return Claim(self.study, trial, values, lock, self._folder_of(trial.number))

    def _folder_of(self, number: int) -> Path:
        return self.folder / name_trial(number)


def open_study(
    folder: Path, *, name: str, database: BaseStorage | None, is_maximized: bool, pruner: str, seed: int
) -> Study:
    """The study of a sweep, new or old. database: None: a journal in the folder."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=_open_journal(folder / JOURNAL) if database is None else database,
        study_name=name,
        direction="maximize" if is_maximized else "minimize",
        sampler=SeededSampler(seed),
        pruner=PRUNERS[pruner](),
        load_if_exists=True,
    )


def open_database(address: str) -> BaseStorage:
    """A database for trials. UserError if it cannot be opened."""
    try:
        return RDBStorage(address)
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:  # of another Optuna: Runtime
        what = f"cannot be opened: {hide_secrets(str(error).splitlines()[0])}"
        raise UserError(what, where=f"storage {hide_secrets(address)}", code="no-storage") from error


@contextmanager
def translate_storage_errors(folder: Path) -> Iterator[None]:
    """A context in which a full disk, or a database that fails, ends the sweep with a RunError."""
    try:
        yield
    except OSError as error:
        what = f"{folder} cannot be written to: {describe_error(error)}; make room, and start again"
        raise RunError(what) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = hide_secrets(str(error.__cause__ or error).splitlines()[0])
        raise RunError(f"the storage of {folder} failed: {reason}; start again to continue") from error


def _open_journal(path: Path) -> BaseStorage:
    """The journal, without what a full disk or the loss of its machine left of a line: Optuna would stumble over it."""
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        text = path.read_bytes() if path.exists() else b""
        if not text.endswith(b"\n") and text:
            os.truncate(path, text.rfind(b"\n") + 1)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock))
