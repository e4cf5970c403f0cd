"""metrics.jsonl: the records of a run, one line each."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

from imagier.train.disk import write_atomic
from imagier.train.hooks.log import Record

NAME = "metrics.jsonl"


class JsonLines:
    """Appends records to <logdir>/metrics.jsonl. If that fails (OSError), they are written with the next one."""

    def __init__(self, logdir: Path, *, from_step: int) -> None:
        """from_step: where the run continues; records of later steps, by an attempt that got further, are removed."""
        self.path = logdir / NAME
        if self.path.exists():
            lines = self.path.read_text(errors="replace").splitlines()
            kept = [line for line in lines if _step(line) <= from_step]
            with write_atomic(self.path) as file:
                file.write("".join(f"{line}\n" for line in kept if line).encode())
        self.file = self.path.open("ab", buffering=0)
        self._size = self.path.stat().st_size
        self._waiting = b""

    def scalars(self, record: Record) -> None:
        line = {"step": record.step, "epoch": record.epoch, "time": round(time.time(), 3), **record.scalars}
        self._waiting += json.dumps(line).encode() + b"\n"
        self._write()

    def image(self, path: Path, step: int) -> None:
        """Images are already files."""

    def close(self) -> None:
        try:
            self._write()
        finally:
            self.file.close()

    def _write(self) -> None:
        """Appends whole lines or nothing."""
        left = memoryview(self._waiting)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError:
            os.truncate(self.file.fileno(), self._size)
            raise
        self._size += len(self._waiting)
        self._waiting = b""


def read(logdir: Path) -> list[dict[str, float]]:
    """All records of a run, oldest first, without a line that a crash cut off."""
    path = logdir / NAME
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _step(line: str) -> float:
    """Of a record; infinite for a line that a crash cut off, or that is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return math.inf
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) else math.inf
