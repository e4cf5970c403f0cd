"""What the package logs, as the lines that a user of the command line reads."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class StdoutHandler(logging.Handler):
    """Writes every message as a line to what `sys.stdout` is at that moment.

    Looking it up each time matters: while a progress bar is shown, rich puts an object there that prints above the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stdout.write(f"{self.format(record)}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            silence_stdout()
            if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.SIG_IGN, None):
                raise
            os.kill(os.getpid(), signal.SIGTERM)  # a training saves, and ends


def silence_stdout() -> None:
    """Sends what is still to be printed nowhere, once nobody reads it any more."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - os.devnull is no file
        os.dup2(nowhere.fileno(), 1)


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
