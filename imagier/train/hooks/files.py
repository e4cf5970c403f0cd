"""metrics.jsonl: the records of a run, one line each."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from imagier.errors import UserError
from imagier.train.disk import AppendFile, describe_error, write_atomic
from imagier.train.hooks.log import Record

logger = logging.getLogger(__name__)

NAME = "metrics.jsonl"


class JsonLines:
    """Appends records to <logdir>/metrics.jsonl. If that fails (OSError), they are written with the next one."""

    def __init__(self, logdir: Path, *, from_step: int) -> None:
        """from_step: where the run continues; records of later steps, by an attempt that got further, are removed.

        UserError if the file cannot be read or written.
        """
        self.path = logdir / NAME
        try:
            self._cut(from_step)
            self.file = AppendFile(self.path)
            self.file.append(b"")
        except OSError as error:
            advice = "make room, move the file away, or name another `logdir`"
            what = f"cannot be written to: {describe_error(error)}"
            raise UserError(what, where=self.path, advice=advice, code="unwritable-log") from error

    def scalars(self, record: Record) -> None:
        line = {"step": record.step, "epoch": record.epoch, "time": round(time.time(), 3), **record.scalars}
        self.file.append(json.dumps(line).encode() + b"\n")

    def image(self, path: Path, step: int) -> None:
        """Images are already files."""

    def close(self) -> None:
        self.file.close()

    def _cut(self, from_step: int) -> None:
        """Removes the lines of later steps, and what a crash left."""
        lines = _read_lines(self.path)
        parsed = [_parse(line) for line in lines]
        kept = [line for line, record in zip(lines, parsed) if record is not None and record["step"] <= from_step]
        if damaged := parsed[:-1].count(None):
            logger.warning(f"{self.path}: {damaged} damaged lines are removed")
        text = "".join(f"{line}\n" for line in kept)
        if self.path.exists() and self.path.stat().st_size != len(text.encode()):
            with write_atomic(self.path) as file:
                file.write(text.encode())


def read(logdir: Path) -> list[dict[str, float]]:
    """All records of a run, oldest first, without lines that a crash cut off or damaged."""
    return [record for line in _read_lines(logdir / NAME) if (record := _parse(line)) is not None]


def _read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _parse(line: str) -> dict[str, Any] | None:
    """The record of a line; None if the line is damaged."""
    try:
        record = json.loads(line)
        return record if record["step"] >= 0 else None
    except (ValueError, TypeError, KeyError):
        return None
