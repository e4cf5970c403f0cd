"""The plot of a sweep: the value of each trial, the values during training, and those by each key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagier.run.sweep_space import Categorical, Int, Range, Value
from imagier.train.disk import write_atomic

if TYPE_CHECKING:
    from imagier.run.sweep_result import Row, SweepResult

COLUMNS, PANEL_INCHES = 3, (4.2, 3.2)

STYLES: Mapping[str, Mapping[str, Any]] = {
    "complete": {"marker": "o", "color": "#3b7dd8"},
    "pruned": {"marker": "x", "color": "#e0782f"},
    "open": {"marker": "D", "color": "#8a63c9"},
}


def draw_sweep(result: SweepResult, space: Mapping[str, Range], path: Path) -> None:
    """Writes a PNG. Trials without a finite value are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in result.rows if row.value is not None and math.isfinite(row.value) and row.state in STYLES]
    panels = 2 + len(space)
    lines = math.ceil(panels / COLUMNS)
    figure = Figure(figsize=(PANEL_INCHES[0] * min(panels, COLUMNS), PANEL_INCHES[1] * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, min(panels, COLUMNS), squeeze=False).flatten()
    for axis in axes[panels:]:
        axis.remove()
    _draw_history(axes[0], rows, result)
    _draw_curves(axes[1], rows, result)
    for axis, (key, values) in zip(axes[2:], space.items()):
        _draw_key(axis, rows, result, key, values)
    with write_atomic(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _draw_history(axis: Any, rows: Sequence[Row], result: SweepResult) -> None:
    numbers = {row.name: number for number, row in enumerate(result.rows)}
    _scatter(axis, [(numbers[row.name], row) for row in rows])
    best: list[tuple[int, float]] = []
    choose = max if result.objective.higher_is_better else min
    for row in rows:
        if row.state == "complete" and row.value is not None:
            best.append((numbers[row.name], choose(row.value, best[-1][1]) if best else row.value))
    axis.step(*zip(*best) if best else ([], []), where="post", color="#2f9e58", label="best so far")
    axis.set(xlabel="trial", ylabel=result.objective.name)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize="small")


def _draw_curves(axis: Any, rows: Sequence[Row], result: SweepResult) -> None:
    for row in rows:
        is_best = row is result.best
        color = "#2f9e58" if is_best else STYLES[row.state]["color"]
        axis.plot(list(row.curve), list(row.curve.values()), color=color, alpha=1 if is_best else 0.5, marker=".")
    axis.set(xlabel="iteration", ylabel=result.objective.name)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _draw_key(axis: Any, rows: Sequence[Row], result: SweepResult, key: str, values: Range) -> None:
    tried = [row for row in rows if key in row.values]
    points: list[tuple[Any, Row]]
    if isinstance(values, Categorical):
        places: Mapping[Value, int] = {choice: place for place, choice in enumerate(values.choices)}
        axis.set_xticks(range(len(places)), [str(choice) for choice in places])
        axis.set_xlim(-0.5, len(places) - 0.5)
        points = [(places[row.values[key]], row) for row in tried]
    else:
        axis.set_xscale("log" if values.log else "linear")
        points = [(row.values[key], row) for row in tried]
        if isinstance(values, Int) and not values.log:
            axis.xaxis.get_major_locator().set_params(integer=True)
    _scatter(axis, points)
    axis.set(xlabel=key, ylabel=result.objective.name)


def _scatter(axis: Any, points: Sequence[tuple[Any, Row]]) -> None:
    for state, style in STYLES.items():
        chosen = [(x, row.value) for x, row in points if row.state == state]
        if chosen:
            axis.scatter(*zip(*chosen), label=state, **style)
