"""What a run can do without while the disk fails: it is left out, which is logged, and training continues."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagier.train.disk import describe_error
from imagier.train.hooks.log import Record, Sink
from imagier.train.trainer import Hook, Outcome, Progress, Trainer

logger = logging.getLogger(__name__)


class TolerantSink:
    """A sink that may fail to write, which is logged once, and once more when a record is written again."""

    def __init__(self, sink: Sink, what: str) -> None:
        """what: what it writes, for people."""
        self.sink = sink
        self.what = what
        self._fails = False

    def scalars(self, record: Record) -> None:
        with self._tolerate():
            self.sink.scalars(record)
            self._log_recovery()

    def image(self, path: Path, step: int) -> None:
        with self._tolerate():  # of what a sink does not show, none fails: that is no recovery
            self.sink.image(path, step)

    def close(self) -> None:
        with self._tolerate():
            self.sink.close()
            self._log_recovery()

    def _log_recovery(self) -> None:
        if self._fails:
            logger.info(f"{self.what} can be written again")
        self._fails = False

    @contextmanager
    def _tolerate(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._fails:
                logger.warning(f"{self.what} cannot be written: {describe_error(error)}; training continues")
            self._fails = True


class TolerantHook:
    """A hook that may fail to write, which is logged each time. It must fail only where no other rank waits for it."""

    def __init__(self, hook: Hook, what: str) -> None:
        """what: what it writes, for people."""
        self.hook = hook
        self.what = what

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        with self._tolerate():
            self.hook.after_step(trainer, progress)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        with self._tolerate():
            self.hook.after_fit(trainer, progress)

    @contextmanager
    def _tolerate(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.warning(f"{self.what} could not be written: {describe_error(error)}")


class SkippedWhenStopped:
    """A hook that has no time at the step after which a run is stopped."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        if progress.outcome is not Outcome.INTERRUPTED:
            self.hook.after_step(trainer, progress)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        self.hook.after_fit(trainer, progress)
