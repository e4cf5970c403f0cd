"""Line charts as inline SVG. Curves of one scale share a chart; a legend is for the page around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

Points = Sequence[tuple[float, float]]
"""Iteration and value, in order. A value that is not finite leaves a gap."""

Bands = Sequence[tuple[float, float, float]]
"""Iteration and the two ends of an interval, in order. One that is not finite leaves a gap."""

_Finite = TypeVar("_Finite", bound=tuple[float, ...])

SCALE = 12.0
"""Curves share a chart if their typical sizes differ by at most this factor."""

MOST_POINTS = 300
"""Longer curves are drawn as the means of equal parts."""

SPIKES_FROM = 20
"""Values from which on a chart may leave out the outermost 1 %: a spike would make everything else flat."""

COLORS = ("#3b7dd8", "#e0782f", "#2f9e58", "#c9433f", "#8a63c9", "#a0714f", "#d168b0", "#1b9aaa")

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 10, 46


@dataclass(frozen=True)
class Entry:
    """A line of a legend."""

    name: str
    color: str
    is_dashed: bool
    last: str
    """The last value, for people."""


@dataclass(frozen=True)
class Chart:
    """A drawn chart and what its colors mean."""

    svg: str
    legend: Sequence[Entry]


def group_by_scale(lines: Mapping[str, Points]) -> list[dict[str, Points]]:
    """Splits curves into groups of similar size, the largest first; curves without a size join the last group."""
    sizes = {name: _measure_size(points) for name, points in lines.items()}
    groups: list[dict[str, Points]] = []
    largest = math.inf
    for name in sorted(lines, key=lambda name: -sizes[name]):
        if not groups or 0 < sizes[name] * SCALE < largest:
            groups.append({})
            largest = sizes[name]
        groups[-1][name] = lines[name]
    return groups


def draw_chart(
    lines: Mapping[str, Points],
    references: Mapping[str, float] | None = None,
    bands: Mapping[str, Bands] | None = None,
) -> Chart:
    """Curves, and references as dashed horizontal lines. All of it may be empty or not finite.

    bands: what a curve lies in, by its name.
    """
    bands = bands or {}
    thinned = {name: thin(points) for name, points in lines.items()}
    steps = [step for points in thinned.values() for step, _ in points]
    values = [value for points in thinned.values() for _, value in points if math.isfinite(value)]
    flat = {name: value for name, value in (references or {}).items() if math.isfinite(value)}
    ends = [end for band in bands.values() for _, *interval in band for end in interval if math.isfinite(end)]
    axes = _Axes(*_find_range(steps, has_margin=False), *_find_range([*_drop_spikes(values), *ends, *flat.values()]))
    curves: list[str] = []
    legend: list[Entry] = []
    for number, (name, points) in enumerate(thinned.items()):
        color = COLORS[number % len(COLORS)]
        is_dashed = number >= len(COLORS)
        curves += axes.draw_band(bands.get(name, ()), color)
        curves += axes.draw_curve(points, color, is_dashed)
        last = lines[name][-1][1] if lines[name] else math.nan
        legend.append(Entry(name, color, is_dashed, f"{last:.4g}" if math.isfinite(last) else "not finite"))
    for number, (name, value) in enumerate(flat.items(), len(lines)):
        color = COLORS[number % len(COLORS)]
        curves += axes.draw_curve([(axes.left, value), (axes.right, value)], color, True)
        legend.append(Entry(name, color, True, f"{value:.4g}"))
    return Chart(axes.draw("".join(curves)), legend)


@dataclass(frozen=True)
class _Axes:
    """A frame with ticks, in the units of the data."""

    left: float
    right: float
    low: float
    high: float

    def draw(self, curves: str) -> str:
        """The chart, with curves that end at its frame."""
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        frame = f'<svg x="{LEFT}" y="{TOP}" width="{width}" height="{height}" viewBox="{LEFT} {TOP} {width} {height}">'
        title = f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">iteration</text>'
        ticks = "".join(self._draw_ticks())
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{ticks}{title}{frame}{curves}</svg></svg>'

    def draw_curve(self, points: Points, color: str, is_dashed: bool) -> Iterator[str]:
        """A line through the points, broken where a value is not finite; a dot for a point without neighbors."""
        dashes = ' stroke-dasharray="5 4"' if is_dashed else ""
        for run in _split_at_gaps(points):
            places = [f"{self._x(step):.1f} {self._y(value):.1f}" for step, value in run]
            if len(places) == 1:
                x, y = places[0].split()
                yield f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>'
            else:
                yield f'<path d="M{"L".join(places)}" fill="none" stroke="{color}" stroke-width="1.6"{dashes}/>'

    def draw_band(self, band: Bands, color: str) -> Iterator[str]:
        """An area between two curves, broken where an end is not finite."""
        for run in _split_at_gaps(band):
            outline = [(step, low) for step, low, _ in run] + [(step, high) for step, _, high in reversed(run)]
            places = [f"{self._x(step):.1f} {self._y(value):.1f}" for step, value in outline]
            yield f'<path d="M{"L".join(places)}Z" fill="{color}" fill-opacity="0.15"/>'

    def _draw_ticks(self) -> Iterator[str]:
        bottom, end = HEIGHT - BOTTOM, WIDTH - RIGHT
        for value in list_ticks(self.low, self.high, most=6):
            y = self._y(value)
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{end}"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 5:.1f}" text-anchor="end">{format_number(value)}</text>'
        for value in list_ticks(self.left, self.right, most=6):
            if value == round(value):
                x = self._x(value)
                yield f'<path class="grid" d="M{x:.1f} {bottom}v4"/>'
                yield f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{format_number(value)}</text>'

    def _x(self, step: float) -> float:
        return LEFT + (step - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        y = HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
        return min(max(y, -HEIGHT), 2 * HEIGHT)  # far outside of the frame, but a number that browsers can draw


def list_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten, at most `most` of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * times for times in (1, 2, 5, 10, 20) if (high - low) / (power * times) <= most - 1)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def format_number(value: float) -> str:
    """A number for an axis: 1,500, 20k, 3M, 0.05, 2e-05."""
    for least, unit, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:g}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def thin(points: Points) -> Points:
    """At most MOST_POINTS points: the means of the finite values of equal parts; NaN for a part without any."""
    if len(points) <= MOST_POINTS:
        return points
    ends = [len(points) * number // MOST_POINTS for number in range(MOST_POINTS + 1)]
    return [_average(points[start:end]) for start, end in pairwise(ends)]


def _average(points: Points) -> tuple[float, float]:
    values = [value for _, value in points if math.isfinite(value)]
    return points[-1][0], sum(values) / len(values) if values else math.nan


def _measure_size(points: Points) -> float:
    """The median of the absolute values; 0 if none is finite."""
    sizes = sorted(abs(value) for _, value in points if math.isfinite(value))
    return sizes[len(sizes) // 2] if sizes else 0.0


def _drop_spikes(values: Sequence[float]) -> Sequence[float]:
    """The values without the outermost 1 % of each side, if these are far outside of the rest."""
    ordered = sorted(values)
    cut = max(1, len(ordered) // 100)
    if len(ordered) < SPIKES_FROM:
        return ordered
    inner = ordered[cut:-cut]
    reach = 2 * (inner[-1] - inner[0])
    return [value for value in ordered if inner[0] - reach <= value <= inner[-1] + reach]


def _find_range(values: Sequence[float], has_margin: bool = True) -> tuple[float, float]:
    """What an axis shows: never empty, also without values."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.05 * (high - low) if has_margin else 0.0
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-30):
        margin = 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def _split_at_gaps(points: Sequence[_Finite]) -> Iterator[list[_Finite]]:
    run: list[_Finite] = []
    for point in points:
        if all(map(math.isfinite, point)):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run
