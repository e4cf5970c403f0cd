"""What the package logs, as the lines that a user of the command line reads."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class StdoutHandler(logging.Handler):
    """Writes every message as a line to what `sys.stdout` is at that moment.

    Looking it up each time matters: while a progress bar is shown, rich puts an object there that prints above the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(f"{self.format(record)}\n")
        sys.stdout.flush()


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
