"""What a run does without while the disk fails."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_trainer import Line, endless, trainer, until

from imagier.train.hooks import files
from imagier.train.hooks.log import Record
from imagier.train.hooks.tolerant import TolerantHook, TolerantSink
from imagier.train.trainer import Progress, Trainer


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file can be longer than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_record_for_which_there_is_half_the_room_waits_whole_for_the_next(tmp_path: Path) -> None:
    sink = files.JsonLines(tmp_path, from_step=0)
    sink.scalars(Record(1, 0, {"a": 1.0}))
    before = sink.path.read_bytes()
    with full_at(len(before) + 9):
        for step in (2, 3):
            with pytest.raises(OSError, match="File too large"):
                sink.scalars(Record(step, 0, {"a": 1.0}))
            assert sink.path.read_bytes() == before
    sink.scalars(Record(4, 0, {"a": 1.0}))
    sink.close()
    assert [record["step"] for record in files.read(tmp_path)] == [1, 2, 3, 4]


def test_what_still_waits_is_written_at_the_end(tmp_path: Path) -> None:
    sink = files.JsonLines(tmp_path, from_step=0)
    with full_at(0), pytest.raises(OSError, match="File too large"):
        sink.scalars(Record(1, 0, {"a": 1.0}))
    sink.close()
    assert [record["step"] for record in files.read(tmp_path)] == [1]


class Broken:
    """A sink and a hook; a full disk, or another mistake."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.closed = False

    def scalars(self, record: Record) -> None:
        if self.error is not None:
            raise self.error

    def image(self, path: Path, step: int) -> None:
        self.scalars(Record(step, 0, {}))

    def close(self) -> None:
        self.scalars(Record(0, 0, {}))

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        if progress.step == 2:
            self.scalars(Record(0, 0, {}))

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        self.scalars(Record(0, 0, {}))


def test_an_outage_of_a_sink_is_logged_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    broken = Broken(OSError(28, "No space left on device"))
    sink = TolerantSink(broken, "x.log")
    for error in (broken.error, broken.error, None, None, broken.error):
        broken.error = error
        sink.scalars(Record(1, 0, {}))
        sink.image(Path("a.jpg"), 1)
    sink.close()
    outage = "x.log cannot be written: No space left on device; training continues"
    assert caplog.messages == [outage, "x.log can be written again", outage]


def test_a_hook_that_cannot_write_ends_no_run_and_logs_that_each_time(caplog: pytest.LogCaptureFixture) -> None:
    hook = TolerantHook(Broken(OSError(28, "No space left on device")), "x.html")
    trainer(Line(), hooks=[hook]).fit(endless(), until(3))
    assert caplog.messages == ["x.html could not be written: No space left on device"] * 2


def test_other_errors_are_not_tolerated() -> None:
    with pytest.raises(ZeroDivisionError):
        TolerantSink(Broken(ZeroDivisionError()), "x").scalars(Record(1, 0, {}))
    with pytest.raises(ZeroDivisionError):
        trainer(Line(), hooks=[TolerantHook(Broken(ZeroDivisionError()), "x")]).fit(endless(), until(3))
