"""What a run can do without while the disk fails: it is left out, that is told, and training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagier.train.disk import reason
from imagier.train.hooks.log import Record, Sink
from imagier.train.trainer import Hook, Progress, Trainer

Say = Callable[[str], None]


class TolerantSink:
    """A sink that may fail to write; told once, and once more when it works again."""

    def __init__(self, sink: Sink, what: str, say: Say) -> None:
        """what: what is not written, for people."""
        self.sink = sink
        self.what = what
        self.say = say
        self._fails = False

    def scalars(self, record: Record) -> None:
        with self._tolerated():
            self.sink.scalars(record)

    def image(self, path: Path, step: int) -> None:
        with self._tolerated():
            self.sink.image(path, step)

    def close(self) -> None:
        with self._tolerated():
            self.sink.close()

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._fails:
                self.say(f"{self.what} cannot be written: {reason(error)}; training goes on")
            self._fails = True
        else:
            if self._fails:
                self.say(f"{self.what} is written again")
            self._fails = False


class TolerantHook:
    """A hook that may fail to write, which is told each time. It must not do so before other ranks are done with it."""

    def __init__(self, hook: Hook, what: str, say: Say) -> None:
        """what: what is not written, for people."""
        self.hook = hook
        self.what = what
        self.say = say

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        with self._tolerated():
            self.hook.after_step(trainer, progress)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        with self._tolerated():
            self.hook.after_fit(trainer, progress)

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.say(f"{self.what} could not be written: {reason(error)}")
