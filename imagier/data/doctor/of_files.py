"""Faults of single files: what the notes of a column say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from imagier.data.doctor.column import Column
from imagier.data.doctor.finding import Finding, Severity, files_of, number_of, of_wrong_files
from imagier.data.doctor.look import NOTHING, WRONG, Flag

_FEW_NAMES, _LARGEST_NAME = 64, 127

_ALIKE = {"bits": "bits", "channels": "channels"}
"""Fields of a note that pictures of a batch have in common, and what they are called."""

Rule = Callable[[Column], Iterator[Finding]]


def faults_of_files(column: Column) -> Iterator[Finding]:
    """All that is wrong with the files of a column, each by itself."""
    for rule in _RULES:
        yield from rule(column)


def _unreadable(column: Column) -> Iterator[Finding]:
    yield from _flagged(
        column,
        Flag.UNREADABLE,
        "file",
        "cannot be read",
        "restore them, or remove them from the set",
    )


def _wrong_form(column: Column) -> Iterator[Finding]:
    yield from _flagged(
        column,
        Flag.WRONG_FORM,
        "file",
        "of another form (channels, bits) than the config expects",
        f"convert them, or correct what the config says of {column.kind.name}",
    )


def _wrong_classes(column: Column) -> Iterator[Finding]:
    places, classes = column.flagged(Flag.WRONG_CLASS), column.kind.num_classes
    if not len(places) or classes is None:
        return
    ids = [int(i) for i in np.flatnonzero(column.files) if i >= classes and i != NOTHING]
    shown = ", ".join(f"{i} (in {number_of(int(column.files[i]), 'file')})" for i in ids[:8])
    yield Finding(
        of_wrong_files(column.part, len(places), column.looked_at),
        str(column),
        f"{number_of(len(places), 'map', column.looked_at)} with classes beyond {classes - 1}, the last one of "
        f"one_hot_num_classes.{column.kind.name}: {shown}{', ...' if len(ids) > 8 else ''}",
        "correct the maps or the number, or set use_dont_care: true, which makes one class of all others",
        files_of(column, places, column.message),
    )


def _not_finite(column: Column) -> Iterator[Finding]:
    yield from _flagged(
        column,
        Flag.NOT_FINITE,
        "file",
        "with values that are no numbers (NaN) or infinite",
        "replace those values; a single one makes all losses NaN",
        Severity.ERROR,
    )


def _mixed_names(column: Column) -> Iterator[Finding]:
    yield from _flagged(
        column,
        Flag.MIXED,
        "map",
        "with values in between at many of their edges, as smoothing and compression leave them",
        "draw maps without anti-aliasing, resize them by nearest neighbour, and never save them as JPEG",
        Severity.WARNING,
    )


def _lossy(column: Column) -> Iterator[Finding]:
    if column.kind.is_mask:
        yield from _flagged(
            column,
            Flag.LOSSY,
            "map",
            "in a format that changes the values of pixels (JPEG)",
            "save the maps as PNG, from their originals: what JPEG has changed, a PNG made of it keeps",
            Severity.WARNING,
        )


def _turned(column: Column) -> Iterator[Finding]:
    yield from _flagged(
        column,
        Flag.TURNED,
        "file",
        "turned when read, as their EXIF data say",
        "see in `imagier data preview` whether they stand upright and fit their partners; if not, turn the files",
        Severity.WARNING,
    )


def _constant(column: Column) -> Iterator[Finding]:
    places = column.flagged(Flag.CONSTANT)
    if column.kind.is_mask or not len(places):
        return
    black = int(np.count_nonzero(column.notes["high"][places] == 0))
    yield Finding(
        Severity.WARNING,
        str(column),
        f"{number_of(len(places), 'picture', len(column.seen))} of one colour, {black:,} of them black",
        "look at them; remove what is empty or was damaged",
        files_of(column, places),
    )


def _values(column: Column) -> Iterator[Finding]:
    if column.kind.is_mask:
        return
    notes = column.notes
    float_range = (notes["bits"] == 32) & ((notes["low"] < 0) | (notes["high"] > 1))
    for wrong, what, advice in (
        (
            float_range,
            "of floating-point values outside 0 to 1, which are taken as they are",
            "divide them by the largest value that there can be",
        ),
        (
            notes["bits"] == 16,
            "of 16 bits, whose values are taken as they are, up to 65535, instead of from 0 to 1",
            "save pictures with 8 bits, or set is_mask: true if the values are names",
        ),
    ):
        places = np.flatnonzero(wrong & (notes["flags"] & WRONG == 0))
        if len(places):
            count = number_of(len(places), "picture", len(column.seen))
            yield Finding(
                Severity.WARNING, str(column), f"{count} {what}", advice, files_of(column, places, _range(column))
            )


def _forms(column: Column) -> Iterator[Finding]:
    """What no batch can hold together."""
    good = column.seen[column.notes["flags"][column.seen] & WRONG == 0]
    if column.part.batch_size == 1 or not len(good):
        return
    fields = {"height": "points", "width": "numbers a point"} if column.kind.is_points else _ALIKE
    for field, called in fields.items():
        values, counts = np.unique(column.notes[field][good], return_counts=True)
        if len(values) == 1:
            continue
        usual = values[counts.argmax()]
        rare = good[column.notes[field][good] != usual]
        shown = " and ".join(f"{value} ({count:,})" for value, count in zip(values, counts))
        yield Finding(
            Severity.ERROR,
            str(column),
            f"files of {shown} {called}, which no batch can hold together",
            f"convert the {number_of(len(rare), 'file')} to {usual} {called}, or use batch_size: 1",
            files_of(column, rare),
        )


def _names_like(column: Column) -> Iterator[Finding]:
    """A map of classes that the config takes for a picture."""
    kind = column.kind
    if kind.is_mask or kind.name not in column.part.labels or not len(column.seen):
        return
    ids = np.flatnonzero(column.files)
    notes = column.notes[column.seen]
    single = (notes["bits"] == 8).all() and (notes["channels"] == 1).all()
    if single and 2 < len(ids) <= _FEW_NAMES and ids[-1] <= _LARGEST_NAME:
        yield Finding(
            Severity.WARNING,
            str(column),
            f"all files together hold {len(ids)} values alone ({_short(ids)}), as if these were classes",
            f"if they are, set is_mask: true and one_hot_num_classes.{kind.name}: {ids[-1] + 1}",
        )


def _flagged(
    column: Column, flag: Flag, thing: str, what: str, advice: str, severity: Severity | None = None
) -> Iterator[Finding]:
    places = column.flagged(flag)
    if len(places):
        yield Finding(
            severity or of_wrong_files(column.part, len(places), column.looked_at),
            str(column),
            f"{number_of(len(places), thing, column.looked_at)} {what}",
            advice,
            files_of(column, places, column.message),
        )


def _range(column: Column) -> Callable[[int], str]:
    def text(place: int) -> str:
        note = column.notes[place]
        return f"{column.where(place)}: {note['low']:g} to {note['high']:g}"

    return text


def _short(ids: np.ndarray) -> str:
    shown = ", ".join(map(str, ids[:6]))
    return shown if len(ids) <= 6 else f"{shown}, ..., {ids[-1]}"


_RULES: tuple[Rule, ...] = (
    _unreadable,
    _wrong_form,
    _wrong_classes,
    _not_finite,
    _forms,
    _mixed_names,
    _lossy,
    _names_like,
    _turned,
    _constant,
    _values,
)
