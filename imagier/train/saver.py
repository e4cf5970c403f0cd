"""Writes the checkpoints of a training in a thread of its own, and logs what came of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import Any

from imagier.train import memory
from imagier.train.checkpoint import build_state
from imagier.train.checkpoint_files import CheckpointFiles
from imagier.train.disk import describe_error
from imagier.train.snapshot import Snapshot, count_bytes
from imagier.train.trainer import Trainer

logger = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long a save waits for the one before, if the disk is slow; then it is left out."""

MOST_OF_FREE_MEMORY = 0.5
"""A copy of the state that needs a larger share of the free memory is not made."""


class Saver:
    """Saves copies of a run's state in the background, one after the other.

    Every method is for the thread of the training. A failure is logged by the next call of any of them; a disk that
    fails ends no run, and every save is a new attempt.
    """

    def __init__(self, files: CheckpointFiles, snapshot: Snapshot) -> None:
        self.files = files
        self.unsaved: str | None = None
        """Why the last save is not on the disk, and what the last good checkpoint is; None if it is."""
        self._snapshot: Snapshot | None = snapshot
        """None if there is no memory for a copy."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._copied = Event()
        """Set while no copy is being made."""
        self._copied.set()
        self._jobs: deque[_Job] = deque()

    def prepare(self, trainer: Trainer) -> None:
        """Reserves the memory for copies, in the background; or decides that there is not enough."""
        state = build_state(trainer, {})
        needed, free = count_bytes(state), memory.count_free_bytes()
        if free is not None and needed > MOST_OF_FREE_MEMORY * free:
            self._snapshot = None
            logger.warning(
                "training pauses while a checkpoint is written: a copy of the state needs "
                f"{needed / 2**30:.1f} GiB of the host's memory, of which {free / 2**30:.1f} GiB are left"
            )
            return
        self._submit("", self._reserve, state)

    def save(
        self,
        trainer: Trainer,
        extras: Mapping[str, Any],
        patience_s: float | None = PATIENCE_S,
        *,
        epoch: int | None = None,
        should_prune: bool = True,
    ) -> None:
        """Copies the run's state as it is now, and writes it later.

        What only an update of a player changes is copied in the background, too; the next update waits for that.
        patience_s: how long to wait for the save before, if it is not written yet; None: until it is. extras: as of
        checkpoint.save. epoch, should_prune: as of CheckpointFiles.add.
        """
        written = self._wait(patience_s)
        if self._snapshot is None:
            return self.save_now(trainer, extras, epoch=epoch, should_prune=should_prune)
        if not written:
            logger.warning(
                f"iteration {trainer.step:,} is not saved: the checkpoint before it is still being written; "
                "the next one is tried as scheduled"
            )
            return None
        constant = [tensor for player in trainer.players.values() for tensor in player.list_moving_tensors()]
        copied, complete = self._snapshot.take(build_state(trainer, extras), constant)
        if not trainer.runtime.is_asynchronous:  # else the device does one after the other by itself
            self._copied.clear()
        for player in trainer.players.values():
            player.before_move = self._copied.wait

        def write() -> None:
            try:
                complete()
            finally:
                self._copied.set()
            self.files.add(copied, epoch, should_prune)

        return self._submit(f"iteration {trainer.step:,}", write)

    def save_now(
        self, trainer: Trainer, extras: Mapping[str, Any], *, epoch: int | None = None, should_prune: bool = True
    ) -> None:
        """Writes the run's state, and waits until it is on the disk or has failed. Other arguments: as of `save`."""
        self._wait(None)
        self._submit(f"iteration {trainer.step:,}", self.files.add, build_state(trainer, extras), epoch, should_prune)
        self._wait(None)

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the scores of the checkpoint of a step, if there is one."""
        self._submit("", self.files.note, step, dict(metrics))

    def report(self) -> None:
        """Logs which of the saves so far have failed."""
        while self._jobs and self._jobs[0].future.done():
            self._settle(self._jobs.popleft())

    def close(self) -> None:
        """Waits until everything is written. The saver can still be used afterwards."""
        self._wait(None)

    def _wait(self, patience_s: float | None) -> bool:
        """Whether everything is finished."""
        done = not wait([job.future for job in self._jobs], patience_s).not_done
        self.report()
        return done

    def _submit(self, what: str, work: Callable[..., None], *args: Any) -> None:
        self.report()
        self._jobs.append(_Job(what, self._thread.submit(work, *args)))

    def _settle(self, job: _Job) -> None:
        try:
            job.future.result()
        except OSError as error:
            self._log_failure(job, error)
            return
        if job.saves:
            if self.unsaved is not None:
                logger.info(f"{job.saves} is saved")
            self.unsaved = None

    def _log_failure(self, job: _Job, error: OSError) -> None:
        if not job.saves:
            logger.warning(
                f"{self.files.logdir}: the scores of a checkpoint could not be written: {describe_error(error)}"
            )
            return
        name = self.files.last_good
        good = f"the last good checkpoint is {self.files.logdir / name}" if name else "there is no checkpoint yet"
        self.unsaved = f"{job.saves} could not be saved: {describe_error(error)}; {good}"
        logger.warning(self.unsaved)

    def _reserve(self, state: Mapping[str, Any]) -> None:
        assert self._snapshot is not None
        try:
            self._snapshot.reserve(state)
        except RuntimeError as error:  # torch's, for memory that it does not get
            self._snapshot = None
            reason = str(error).partition("\n")[0]
            logger.warning(
                f"training pauses while a checkpoint is written: no memory for a copy of the state ({reason})"
            )


@dataclass(frozen=True)
class _Job:
    saves: str
    """The iteration that it saves, in words; empty if it does something else."""
    future: Future[None]
