"""metrics.jsonl: every record of a run, one line each."""

from __future__ import annotations

import json
import time
from pathlib import Path

from imagier.train.checkpoint import replacing
from imagier.train.hooks.log import Record

NAME = "metrics.jsonl"


class JsonLines:
    """Appends records to <logdir>/metrics.jsonl."""

    def __init__(self, logdir: Path, *, from_step: int) -> None:
        """from_step: where the run continues; what an earlier, longer attempt wrote beyond it is removed."""
        self.path = logdir / NAME
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step(line) <= from_step]
            with replacing(self.path) as file:
                file.write("".join(f"{line}\n" for line in kept if line).encode())
        self.file = self.path.open("a", buffering=1)

    def scalars(self, record: Record) -> None:
        line = {"step": record.step, "epoch": record.epoch, "time": round(time.time(), 3), **record.scalars}
        self.file.write(json.dumps(line) + "\n")

    def picture(self, path: Path, step: int) -> None:
        """Pictures are files already."""

    def close(self) -> None:
        self.file.close()


def read(logdir: Path) -> list[dict[str, float]]:
    """All records of a run, oldest first; a line that was cut off by a crash is left out."""
    path = logdir / NAME
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _step(line: str) -> float:
    return json.loads(line)["step"] if line.endswith("}") else float("inf")
