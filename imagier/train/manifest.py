"""checkpoints.json: the checkpoints that were written into a log folder, with their sizes and hashes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from imagier.recipe import Position
from imagier.train.disk import describe_error, write_atomic

NAME = "checkpoints.json"
FORMAT = 1

_NAME = r"epoch_(\d+)_iteration_(\d+)_checkpoint\.pt"


@dataclass(frozen=True)
class Entry:
    """One checkpoint."""

    name: Annotated[str, Field(pattern=f"^{_NAME}$")]
    step: int
    epoch: int
    bytes: int
    sha256: str | None
    """None if this run did not write it: that of an older version, or of the reference."""
    time: float
    """When it was written, in seconds since 1970."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Scores on held-out samples, by the name of the metric, once they are known."""


@dataclass(frozen=True)
class _Whole:
    format: int
    checkpoints: list[Entry]


_WHOLE = TypeAdapter(_Whole)


class DamagedManifest(ValueError):
    """A checkpoints.json that is not as it was written; the text is why."""


def format_file_name(epoch: int, step: int) -> str:
    """The reference's name for the checkpoint of an epoch and step."""
    return f"epoch_{epoch:05d}_iteration_{step:09d}_checkpoint.pt"


def choose_epoch_in_name(position: Position, step: int, max_iter: int | None) -> int:
    """The epoch in the name of the checkpoint of a step, as the reference counts.

    What is saved at the end of an epoch bears the number of the next one; but a run that `max_iter` ends has not ended
    its epoch.
    """
    has_just_ended = position.epoch > 0 and position.samples == 0
    return position.epoch - (has_just_ended and max_iter is not None and step >= max_iter)


def parse_name(name: str) -> tuple[int, int] | None:
    """Epoch and step of a checkpoint of that name; None if it is no checkpoint's name."""
    match = re.fullmatch(_NAME, name)
    return (int(match[1]), int(match[2])) if match else None


def read(logdir: Path) -> list[Entry]:
    """All entries, in the order in which they were written. FileNotFoundError or DamagedManifest if that fails."""
    try:
        return _WHOLE.validate_json((logdir / NAME).read_bytes()).checkpoints
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedManifest(f"cannot be read: {describe_error(error)}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedManifest(f"{where}: {first['msg']}" if where else first["msg"]) from error


def write(logdir: Path, entries: Iterable[Entry]) -> None:
    """Replaces checkpoints.json."""
    with write_atomic(logdir / NAME) as file:
        file.write(_WHOLE.dump_json(_Whole(FORMAT, list(entries)), indent=1) + b"\n")


def read_or_scan(logdir: Path) -> list[Entry]:
    """All entries; if the manifest is missing, damaged or empty, what the names of the files say."""
    try:
        return read(logdir) or scan_folder(logdir)
    except (FileNotFoundError, DamagedManifest):
        return scan_folder(logdir)


def scan_folder(logdir: Path) -> list[Entry]:
    """Entries for the checkpoints in a folder, from their names alone, the latest step last."""
    entries = []
    for path in logdir.glob("*.pt"):
        if (at := parse_name(path.name)) and path.is_file():
            about = path.stat()
            entries.append(Entry(path.name, at[1], at[0], about.st_size, None, about.st_mtime))
    return sorted(entries, key=lambda entry: entry.step)


def find_entry(path: Path) -> Entry | None:
    """The entry of a file in the manifest beside it; None if there is none, or no manifest that can be read."""
    try:
        entries = read(path.parent)
    except (OSError, DamagedManifest):
        return None
    return next((entry for entry in entries if entry.name == path.name), None)
