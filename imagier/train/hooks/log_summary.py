"""What report.html shows of a log: the last scores, the time, curves, and scores by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagier.train.hooks.baselines import CLASS_COLORS, ClassErrors
from imagier.train.hooks.charts import Chart, draw_chart, group_by_scale
from imagier.train.hooks.evaluation import AVERAGE, BASELINE, REGULAR
from imagier.train.scoring import GENERATOR, LIVE, Scores

Records = Sequence[Mapping[str, float]]

MOST_CLASSES = 30
WEIGHTS = {AVERAGE: "average weights", REGULAR: "live weights"}
"""What a generator's two kinds of weights are called."""

_TITLES = {"optim": "learning rates"}
_NOT_DRAWN = ("memory", "time", "speed")


def find_scores(records: Records, names: Sequence[str]) -> tuple[dict[str, Scores], int]:
    """The last scores in a log, as of `Evaluation.last`, and the step they are of; none if there are none."""
    for record in reversed(records):
        found: dict[str, Scores] = {}
        for name in names:
            for suffix, value in _select(record, name).items():
                # A generator without a score made images that are not finite; to the others it does not apply.
                found.setdefault(suffix, dict.fromkeys(names, math.nan) if suffix in WEIGHTS else {})[name] = value
        if found:
            live = LIVE if AVERAGE in found else GENERATOR
            weights = {AVERAGE: GENERATOR, REGULAR: live}
            order = sorted(found, key=[AVERAGE, REGULAR, *found].index)
            by_maker = {weights.get(suffix, suffix.removeprefix(BASELINE)): found[suffix] for suffix in order}
            return by_maker, int(record["step"])
    return {}, 0


def find_score_names(records: Records) -> list[str]:
    """The names of the scores in a log, by the tags of its last record that has some."""
    for record in reversed(records):
        parts = [tag.rpartition("/") for tag in record]
        if names := list(dict.fromkeys(name for name, _, weights in parts if name and weights in WEIGHTS)):
            return names
    return []


def _select(record: Mapping[str, float], score: str) -> dict[str, float]:
    """The values of a score in a record, by what comes after its name."""
    prefix = f"{score}/"
    return {tag.removeprefix(prefix): value for tag, value in record.items() if tag.startswith(prefix)}


def rename(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The scores by names for people."""
    weights = "generator, average weights" if LIVE in scores else GENERATOR
    names = {GENERATOR: weights, LIVE: "generator, live weights"}
    return {names.get(name, name): of_name for name, of_name in scores.items()}


def sum_seconds(records: Records) -> float:
    """The time that the logged iterations took, over all starts of the run."""
    seconds, before = 0.0, 0.0
    for record in records:
        if "time/iteration" in record:
            seconds += max(record["step"] - before, 0) * record["time/iteration"]
            before = int(record["step"])
    return seconds


def draw_charts(records: Records, names: Sequence[str]) -> dict[str, list[Chart]]:
    """Every logged value over the iterations, by what it is about: the charts of each score, player, and so on.

    names: those of the scores.
    """
    rooms = _collect_lines(records, names)
    charts = {}
    for name in (name for name in names if name in rooms):
        lines = rooms.pop(name)
        curves = {WEIGHTS.get(key, key): points for key, points in lines.items() if not key.startswith(BASELINE)}
        flat = {key.removeprefix(BASELINE): points[-1][1] for key, points in lines.items() if key.startswith(BASELINE)}
        charts[f"{name}, held out"] = [draw_chart(curves, flat)]
    for room, lines in rooms.items():
        charts[_TITLES.get(room, room)] = [draw_chart(group) for group in group_by_scale(lines)]
    return charts


def _collect_lines(records: Records, scores: Sequence[str]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The points of each tag "room/name", by room and by name. The name of a score is a room, even with a slash."""
    places: dict[str, tuple[str, str]] = {}
    rooms: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        for tag, value in record.items():
            if tag not in places:
                own = next((score for score in scores if tag.startswith(f"{score}/")), tag.partition("/")[0])
                places[tag] = own, tag[len(own) + 1 :]
            room, name = places[tag]
            if name and room not in _NOT_DRAWN and isinstance(value, (int, float)):  # the log may be another program's
                rooms.setdefault(room, {}).setdefault(name, []).append((record["step"], value))
    return rooms


@dataclass(frozen=True)
class ClassRow:
    """The scores of one class."""

    number: int
    share: str
    """Of the pixels."""
    generator: str
    baseline: str
    is_better: bool


def tabulate_classes(by_class: Mapping[str, ClassErrors]) -> list[ClassRow]:
    """The classes with the most pixels, the largest first. by_class: of `Evaluation`."""
    if CLASS_COLORS not in by_class or GENERATOR not in by_class:
        return []
    own, base, shares = by_class[GENERATOR].values, by_class[CLASS_COLORS].values, by_class[GENERATOR].shares
    numbers = sorted((number for number in range(len(own)) if shares[number]), key=lambda number: -shares[number])
    return [
        ClassRow(
            number, f"{shares[number]:.1%}", f"{own[number]:.4g}", f"{base[number]:.4g}", own[number] < base[number]
        )
        for number in numbers[:MOST_CLASSES]
    ]
