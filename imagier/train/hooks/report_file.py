"""report.json: what the page of a run shows, beside what its log, its images and its cards say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from imagier.metrics.metric import Score
from imagier.train.disk import write_atomic
from imagier.train.hooks.log_summary import ClassRow

NAME = "report.json"


@dataclass(frozen=True)
class About:
    """What a run is."""

    command: str
    """How this process was started."""
    total_steps: int
    from_step: int = 0
    """Iterations done before this process."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """For people, by name."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """What can be done with the run: the command of each purpose."""
    config: str = ""
    """All of it, as YAML."""
    scores: Sequence[Score] = ()
    """Those that the run logs."""


@dataclass(frozen=True)
class Standing:
    """What a run is, and how far it has come."""

    about: About
    state: str
    """running, stopped, finished or failed."""
    why: str
    """More about that, for people; may be empty."""
    step: int
    epoch: int
    time: float
    """When this was so, in seconds since 1970."""
    device: str
    peak_memory_bytes: int
    verdicts: Sequence[str] = ()
    """What is wrong with the run, in words."""
    classes: Sequence[ClassRow] = ()
    """The last scores by class."""


_STANDING = TypeAdapter(Standing)


def write(logdir: Path, standing: Standing) -> None:
    """Replaces the file, complete or not at all; OSError if that fails."""
    with write_atomic(logdir / NAME) as file:
        file.write(_STANDING.dump_json(standing, indent=1) + b"\n")


def read(logdir: Path) -> Standing | None:
    """What the run in a folder wrote last; None if there is no such file, or not one of this version."""
    try:
        return _STANDING.validate_json((logdir / NAME).read_bytes())
    except (OSError, ValueError):
        return None
