"""What the package logs, for tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def logged() -> Iterator[list[str]]:
    """The messages that the loggers `imagier.*` get (INFO and above) while this is open."""
    package = logging.getLogger("imagier")
    lines: list[str] = []
    handler, level = _Lines(lines), package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        package.setLevel(level)
        package.removeHandler(handler)
