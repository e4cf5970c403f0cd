"""What report.html shows of the cards of a run's checkpoints: tables and curves, of one protocol each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imagier.errors import UserError, hide_secrets
from imagier.train.card import Card, compare_protocols, flatten, read_card
from imagier.train.hooks.charts import Chart, draw_chart
from imagier.train.hooks.evaluation import AVERAGE
from imagier.train.hooks.log_summary import WEIGHTS

FOLDER = "evaluations"
"""In the log folder: a card for each checkpoint, weights and protocol, as JSON."""

NEAREST = "nearest"
"""What the subject of a card says of the image beside it: generated images, each with its nearest training images."""


@dataclass(frozen=True)
class Measured:
    """The card of a checkpoint."""

    path: Path
    card: Card
    step: int
    weights: str
    """average or regular, or empty."""

    @property
    def label(self) -> str:
        """Which weights, for people."""
        return WEIGHTS.get(self.weights, self.weights)

    @property
    def nearest_path(self) -> Path:
        """The image that belongs to it, which may be missing."""
        return self.path.with_name(f"{self.path.stem}_nearest.jpg")

    @property
    def caption(self) -> str:
        """What that image shows."""
        return hide_secrets(str(self.card.subject.get(NEAREST, "Generated images and the nearest training images.")))

    def list_facts(self) -> dict[str, dict[str, str]]:
        """All that the numbers depend on, by heading."""
        subject = {name: value for name, value in self.card.subject.items() if name != NEAREST}
        parts = {"protocol": self.card.protocol, "subject": subject, "made by": self.card.made_by}
        return {
            heading: {name: hide_secrets(text) for name, text in flatten(part).items()}
            for heading, part in parts.items()
        }


@dataclass(frozen=True)
class Row:
    """A value of the newest checkpoint, as text."""

    name: str
    cells: Sequence[tuple[str, str]]
    """The value and its interval, for each kind of weights."""
    floor: str
    at_its_size: str
    """The value of as few generated images as the floor is of."""
    better: str


@dataclass(frozen=True)
class Results:
    """What was measured by one protocol: only these numbers may be compared with each other."""

    protocol_hash: str
    step: int
    newest: Sequence[Measured]
    """The cards of that step, of different weights."""
    rows: Sequence[Row]
    charts: dict[str, Chart]
    """The values of all checkpoints, by name; none if there is only one checkpoint."""
    differences: Sequence[tuple[str, str, str]]
    """What is not as in the first protocol of the page: name, how it is in that one, and here."""
    warnings: Sequence[str]

    @property
    def names(self) -> list[str]:
        """Of the values."""
        return [row.name for row in self.rows]

    @property
    def sizes(self) -> str:
        """How many images were compared, for people; empty if the card does not say so."""
        card = self.newest[0].card
        counts = [(card.protocol.get("num_real"), "real"), (card.subject.get("num_generated"), "generated")]
        known = [f"{count:,} {name}" for count, name in counts if isinstance(count, int)]
        floor = " against ".join(f"{count:,}" for count in card.floor_sizes)
        images = f"{' and '.join(known)} images" if known else ""
        return "; ".join(part for part in (images, f"floor: {floor} real images" if card.floor else "") if part)


def read_results(logdir: Path, higher_is_better: Mapping[str, bool]) -> tuple[list[Results], list[str]]:
    """The results in a log folder, those of the newest checkpoint first; and a line for each file that is no card.

    higher_is_better: of values of which a card does not say so.
    """
    found: dict[str, dict[tuple[int, str], Measured]] = {}
    unreadable = []
    for path in sorted((logdir / FOLDER).glob("*.json")):
        try:
            each = _read(path, higher_is_better)
        except UserError as error:
            unreadable.append(f"{FOLDER}/{path.name}: {hide_secrets(error.what)}; it is left out")
            continue
        same = found.setdefault(each.card.protocol_hash, {})
        key = each.step, each.weights
        if key not in same or _date(each) >= _date(same[key]):
            same[key] = each
    groups = sorted(found.values(), key=lambda same: max((key[0], _date(each)) for key, each in same.items()))
    measured = [_order(same.values()) for same in reversed(groups)]
    return [_summarize(each, measured[0][-1].card) for each in measured], unreadable


def _read(path: Path, higher_is_better: Mapping[str, bool]) -> Measured:
    card = read_card(path)
    card = replace(card, higher_is_better={**higher_is_better, **card.higher_is_better})
    step = card.subject.get("iteration")
    if not isinstance(step, int):
        raise UserError("does not say of which iteration it is", where=path, code="damaged-card")
    return Measured(path, card, step, str(card.subject.get("weights", "")))


def _date(each: Measured) -> str:
    return each.card.made_by.get("date", "")


def _order(measured: Iterable[Measured]) -> list[Measured]:
    """By iteration, the average weights first."""
    return sorted(measured, key=lambda each: (each.step, each.weights != AVERAGE, each.weights))


def _summarize(measured: Sequence[Measured], first: Card) -> Results:
    """measured: the cards of one protocol, by iteration. first: one of the first protocol of the page."""
    step = measured[-1].step
    newest = [each for each in measured if each.step == step]
    names = dict.fromkeys(name for each in newest for name in each.card.values)
    has_curves = measured[0].step < step
    return Results(
        newest[0].card.protocol_hash,
        step,
        newest,
        [_make_row([each.card for each in newest], name) for name in names],
        {name: _draw(measured, name) for name in names} if has_curves else {},
        [
            (name, hide_secrets(there), hide_secrets(here))
            for name, there, here in compare_protocols(first, newest[0].card)
        ],
        list(dict.fromkeys(hide_secrets(warning) for each in newest for warning in each.card.warnings)),
    )


def _make_row(cards: Sequence[Card], name: str) -> Row:
    """cards: of one checkpoint."""
    ends = [card.intervals.get(name, (math.nan, math.nan)) for card in cards]
    intervals = ["-" if math.isnan(low + high) else f"{_round(low)} to {_round(high)}" for low, high in ends]
    values = [_round(card.values.get(name, math.nan)) for card in cards]
    ways = [card.higher_is_better[name] for card in cards if name in card.higher_is_better]
    better = ("higher" if ways[0] else "lower") if ways else ""
    floor, at_its_size = (_round(of.get(name, math.nan)) for of in (cards[0].floor, cards[0].at_floor_sizes))
    return Row(name, list(zip(values, intervals)), floor, at_its_size, better)


def _draw(measured: Sequence[Measured], name: str) -> Chart:
    """The values of a name over the iterations: a line for each kind of weights, in its interval."""
    lines: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for each in sorted(measured, key=lambda each: (each.weights != AVERAGE, each.weights, each.step)):
        if name in each.card.values:
            label = each.label or "value"
            lines.setdefault(label, []).append((each.step, each.card.values[name]))
            interval = each.card.intervals.get(name, (math.nan, math.nan))
            bands.setdefault(label, []).append((each.step, *interval))
    card = measured[-1].card
    of_images = f" of {card.floor_sizes[0]:,} images" if name in card.at_floor_sizes else ""
    return draw_chart(lines, {f"floor{of_images}": card.floor.get(name, math.nan)}, bands)


def _round(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
