"""What the package logs, as the lines that a user of the command line reads; and where they can be written no more."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TextIO

from imagier.train.disk import describe_error


class StdoutHandler(logging.Handler):
    """Writes every message as a line to what `sys.stdout` is at that moment.

    Looking it up each time matters: while a progress bar is shown, rich puts an object there that prints above the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(f"{self.format(record)}\n")
        sys.stdout.flush()


class Output:
    """Stdout or stderr: on a disk that may be full, a terminal that may be closed, a pipe that nobody may read."""

    def __init__(self, stream: TextIO, *, is_vital: bool, other: Output | None = None) -> None:
        """is_vital: raise what fails (OSError). Otherwise the first failure is said on the other output."""
        self.stream = stream
        self.is_vital = is_vital
        self.other = other
        self.error: OSError | None = None
        """The last failure."""

    def write(self, text: str) -> int:
        """Writes a text, or as much of it as can be; returns its whole length."""
        with self._watch():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what is left in the buffer; if that fails, it stays there for the next time."""
        with self._watch():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _watch(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            is_first, self.error = self.error is None, error
            if self.is_vital:
                raise
            if is_first and self.other is not None:
                self.other.write(f"stdout cannot be written to: {describe_error(error)}; the run continues\n")
        except RuntimeError as error:
            # A signal's handler says something while the same stream is being written to.
            if "reentrant" not in str(error):
                raise

    def settle(self) -> None:
        """Drops what still cannot be written, before Python tries and complains at its end."""
        try:
            self.stream.flush()
        except OSError:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - os.devnull is no file
                os.dup2(nowhere.fileno(), self.stream.fileno())
            with suppress(OSError):
                self.stream.flush()


@contextmanager
def watch_outputs(*, is_vital: bool) -> Iterator[Output]:
    """While this is open, `sys.stdout` is an Output, which is returned, and so is `sys.stderr`, which is never vital.

    is_vital: whether what is printed on stdout is the purpose of all this. If not, nothing ends because it cannot be.
    """
    before = sys.stdout, sys.stderr
    # None is a stream that was closed before the process began.
    streams = [open(os.devnull, "w") if stream is None else stream for stream in before]  # noqa: PTH123, SIM115
    for stream in streams:
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a character shows its number
            stream.reconfigure(errors="backslashreplace")
    stderr = Output(streams[1], is_vital=False)
    stdout = Output(streams[0], is_vital=is_vital, other=stderr)
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield stdout
    finally:
        stdout.settle()
        stderr.settle()
        sys.stdout, sys.stderr = before


@contextmanager
def print_logs() -> Iterator[None]:
    """While this is open, what the loggers `imagier.*` get (INFO and above) is printed on stdout."""
    logger = logging.getLogger("imagier")
    level, handler = logger.level, StdoutHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
