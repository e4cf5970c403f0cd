"""The card of a measurement: the numbers, and all that they depend on, so that two of them can be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from imagier.errors import UserError
from imagier.train.disk import write_atomic
from imagier.train.flatten import flatten_tree

FORMAT = 1

Number = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
"""Not finite: null in the file, NaN once it is read."""


@dataclass(frozen=True)
class Card:
    """Numbers about generated images, and how they were measured."""

    values: Mapping[str, Number]
    """By short name: fd, kd, precision, ..."""
    intervals: Mapping[str, tuple[Number, Number]]
    """Of some values: where they lie with 95 % confidence, over generated sets of this size."""
    floor: Mapping[str, Number]
    """The values of real images against other real ones, at the sizes in `floor_sizes`: no generator is better."""
    floor_sizes: tuple[int, int]
    """How many real images stood for generated ones, and how many others they were compared with."""
    protocol: Mapping[str, Any]
    """What two measurements must have in common to be comparable."""
    subject: Mapping[str, Any]
    """What was measured: the generated set, the weights that made it."""
    warnings: Sequence[str] = ()
    made_by: Mapping[str, str] = field(default_factory=dict)
    """The versions of the programs, the device, and the date."""
    at_floor_sizes: Mapping[str, Number] = field(default_factory=dict)
    """The values of as many generated images against the same others: what the floor is to be compared with, where the
    sizes of sets matter."""
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    """Of those values that have a better way."""

    @property
    def protocol_hash(self) -> str:
        """16 hexadecimal digits; equal if and only if the protocols are."""
        return hash_protocol(self.protocol)

    def write(self, path: Path) -> None:
        """As JSON, complete or not at all. UserError if that fails."""
        content = {"format": FORMAT, "protocol_hash": self.protocol_hash, **dataclasses.asdict(self)}
        text = json.dumps(_without_nan(content), indent=2) + "\n"
        try:
            with write_atomic(path) as file:
                file.write(text.encode())
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", where=path, code="unwritable-card") from error


def hash_protocol(protocol: Mapping[str, Any]) -> str:
    """16 hexadecimal digits for a protocol."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]


_CARD = TypeAdapter(Card)


def read_card(path: Path) -> Card:
    """A card that `Card.write` wrote. UserError if it is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=path, code="unreadable-card") from error
    except ValueError as error:
        raise UserError("is no JSON", where=path, advice="expected a card", code="damaged-card") from error
    try:
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("another format")
        return _CARD.validate_python(content)
    except ValueError as error:
        advice = "expected one that `imagier metrics --out` or `imagier evaluate` wrote"
        raise UserError("is no card of this version", where=path, advice=advice, code="damaged-card") from error


def join_cards(first: Card, second: Card) -> Card:
    """The card with the numbers of two that tell of the same images; where both say something, the second counts."""
    both: dict[str, Any] = {
        name: {**first.protocol.get(name, {}), **second.protocol.get(name, {})}
        for name in ("metrics", "features")
        if name in {*first.protocol, *second.protocol}
    }
    return dataclasses.replace(
        first,
        values={**first.values, **second.values},
        intervals={**first.intervals, **second.intervals},
        floor={**first.floor, **second.floor},
        floor_sizes=max(first.floor_sizes, second.floor_sizes),
        at_floor_sizes={**first.at_floor_sizes, **second.at_floor_sizes},
        warnings=[*first.warnings, *second.warnings],
        protocol={**first.protocol, **second.protocol, **both},
        higher_is_better={**first.higher_is_better, **second.higher_is_better},
    )


def compare_protocols(first: Card, second: Card) -> list[tuple[str, str, str]]:
    """What is not the same in two measurements: name, value in the first, value in the second; empty if comparable."""
    one, other = flatten(first.protocol), flatten(second.protocol)
    names = [*one, *(name for name in other if name not in one)]
    return [
        (name, one.get(name, "-"), other.get(name, "-")) for name in names if one.get(name, "-") != other.get(name, "-")
    ]


def flatten(tree: Mapping[str, Any]) -> dict[str, str]:
    """What stands in a tree, as text, by its path: {"a": {"b": 1}} -> {"a.b": "1"}."""
    return {path: str(value) for path, value in flatten_tree(tree).items()}


def _without_nan(value: Any) -> Any:
    """For JSON, which has no NaN: null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
