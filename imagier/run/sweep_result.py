"""What came of the trials of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagier.run.sweep_space import Value
from imagier.run.sweep_trial import Objective, name_trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Row:
    """What came of a trial."""

    name: str
    """Its folder."""
    state: str
    """complete, pruned, failed, or open: not finished."""
    value: float | None
    """Of the objective at its end; of a trial that is pruned or open, the last one that is known."""
    step: int
    """The iteration of the value; 0: there is none."""
    curve: Mapping[int, float]
    """All values, by iteration."""
    values: Mapping[str, Value]
    """Of the keys."""
    why: str = ""
    """It failed."""


@dataclass(frozen=True)
class SweepResult:
    """What is known of all trials."""

    objective: Objective
    rows: list[Row]
    """In the order in which they began."""
    best: Row | None
    """None: no trial is complete."""
    is_interrupted: bool
    """Start it again to continue."""


def summarize(trials: Sequence[FrozenTrial], objective: Objective, *, is_interrupted: bool) -> SweepResult:
    """What is known of these trials."""
    rows = [_make_row(trial) for trial in trials]
    complete = [row for row in rows if row.state == "complete"]
    sign = -1 if objective.higher_is_better else 1
    best = min(complete, key=lambda row: sign * (row.value or 0.0), default=None)
    return SweepResult(objective, rows, best, is_interrupted)


def _make_row(trial: FrozenTrial) -> Row:
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    step, value = max(trial.intermediate_values.items(), default=(0, None))
    return Row(
        name_trial(trial.number),
        states.get(trial.state.name, "open"),
        trial.value if trial.state.name == "COMPLETE" else value,
        step,
        dict(sorted(trial.intermediate_values.items())),
        dict(trial.params),
        trial.user_attrs.get("why", ""),
    )
