"""Faults of single files: what the notes of a column say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from imagier.data.codecs.mask import NOTHING
from imagier.tools.doctor.file_stats import WRONG, Flag
from imagier.tools.doctor.file_table import FileTable
from imagier.tools.doctor.finding import Finding, Severity, files_of, number_of, of_wrong_files

_FEW_NAMES, _LARGEST_NAME = 64, 127

_ALIKE = {"bits": "bits", "channels": "channels"}
"""Fields of a note that images of a batch have in common, and what they are called."""

Rule = Callable[[FileTable], Iterator[Finding]]


def faults_of_files(table: FileTable) -> Iterator[Finding]:
    """All that is wrong with the files of a column, each by itself."""
    for rule in _RULES:
        yield from rule(table)


def _unreadable(table: FileTable) -> Iterator[Finding]:
    yield from _flagged(
        table,
        Flag.UNREADABLE,
        "file",
        "cannot be read",
        "restore them, or remove them from the set",
    )


def _wrong_form(table: FileTable) -> Iterator[Finding]:
    yield from _flagged(
        table,
        Flag.WRONG_FORM,
        "file",
        "of another form (channels, bits) than the config expects",
        f"convert them, or correct what the config says of {table.codec.name}",
    )


def _wrong_classes(table: FileTable) -> Iterator[Finding]:
    places, classes = table.flagged(Flag.WRONG_CLASS), table.codec.num_classes
    if not len(places) or classes is None:
        return
    ids = [int(i) for i in np.flatnonzero(table.files) if i >= classes and i != NOTHING]
    shown = ", ".join(f"{i} (in {number_of(int(table.files[i]), 'file')})" for i in ids[:8])
    yield Finding(
        of_wrong_files(table.part, len(places), table.looked_at),
        str(table),
        f"{number_of(len(places), 'map', table.looked_at)} with classes beyond {classes - 1}, the last one of "
        f"one_hot_num_classes.{table.codec.name}: {shown}{', ...' if len(ids) > 8 else ''}",
        "correct the maps or the number, or set use_dont_care: true, which makes one class of all others",
        files_of(table, places, table.message),
    )


def _not_finite(table: FileTable) -> Iterator[Finding]:
    yield from _flagged(
        table,
        Flag.NOT_FINITE,
        "file",
        "with values that are no numbers (NaN) or infinite",
        "replace those values; a single one makes all losses NaN",
        Severity.ERROR,
    )


def _remarks(table: FileTable) -> Iterator[Finding]:
    """What the codec says about files."""
    thing = "map" if table.codec.holds_ids else "image" if table.codec.has_pixels else "file"
    text = None if table.codec.holds_ids else _range(table)
    for remark, places in table.remarks.items():
        count = number_of(len(places), thing, len(table.seen))
        rows = files_of(table, np.array(places), text)
        yield Finding(Severity.WARNING, str(table), f"{count} {remark.what}", remark.advice, rows)


def _lossy(table: FileTable) -> Iterator[Finding]:
    if table.codec.holds_ids:
        yield from _flagged(
            table,
            Flag.LOSSY,
            "map",
            "in a format that changes the values of pixels (JPEG)",
            "save the maps as PNG, from their originals: what JPEG has changed, a PNG made of it keeps",
            Severity.WARNING,
        )


def _turned(table: FileTable) -> Iterator[Finding]:
    yield from _flagged(
        table,
        Flag.TURNED,
        "file",
        "turned when read, as their EXIF data say",
        "see in `imagier data preview` whether they stand upright and fit their partners; if not, turn the files",
        Severity.WARNING,
    )


def _constant(table: FileTable) -> Iterator[Finding]:
    places = table.flagged(Flag.CONSTANT)
    if table.codec.holds_ids or not len(places):
        return
    black = int(np.count_nonzero(table.notes["high"][places] == 0))
    yield Finding(
        Severity.WARNING,
        str(table),
        f"{number_of(len(places), 'image', len(table.seen))} of one color, {black:,} of them black",
        "look at them; remove what is empty or was damaged",
        files_of(table, places),
    )


def _forms(table: FileTable) -> Iterator[Finding]:
    """What no batch can hold together."""
    good = table.seen[table.notes["flags"][table.seen] & WRONG == 0]
    if table.part.batch_size == 1 or not len(good):
        return
    fields = {"height": "points", "width": "numbers a point"} if not table.codec.has_pixels else _ALIKE
    for field, called in fields.items():
        values, counts = np.unique(table.notes[field][good], return_counts=True)
        if len(values) == 1:
            continue
        usual = values[counts.argmax()]
        rare = good[table.notes[field][good] != usual]
        shown = " and ".join(f"{value} ({count:,})" for value, count in zip(values, counts))
        yield Finding(
            Severity.ERROR,
            str(table),
            f"files of {shown} {called}, which no batch can hold together",
            f"convert the {number_of(len(rare), 'file')} to {usual} {called}, or use batch_size: 1",
            files_of(table, rare),
        )


def _names_like(table: FileTable) -> Iterator[Finding]:
    """A map of classes that the config takes for an image."""
    codec = table.codec
    if codec.holds_ids or codec.name not in table.part.labels or not len(table.seen):
        return
    ids = np.flatnonzero(table.files)
    notes = table.notes[table.seen]
    single = (notes["bits"] == 8).all() and (notes["channels"] == 1).all()
    if single and 2 < len(ids) <= _FEW_NAMES and ids[-1] <= _LARGEST_NAME:
        yield Finding(
            Severity.WARNING,
            str(table),
            f"all files together hold {len(ids)} values alone ({_short(ids)}), as if these were classes",
            f"if they are, set is_mask: true and one_hot_num_classes.{codec.name}: {ids[-1] + 1}",
        )


def _flagged(
    table: FileTable, flag: Flag, thing: str, what: str, advice: str, severity: Severity | None = None
) -> Iterator[Finding]:
    places = table.flagged(flag)
    if len(places):
        yield Finding(
            severity or of_wrong_files(table.part, len(places), table.looked_at),
            str(table),
            f"{number_of(len(places), thing, table.looked_at)} {what}",
            advice,
            files_of(table, places, table.message),
        )


def _range(table: FileTable) -> Callable[[int], str]:
    def text(place: int) -> str:
        note = table.notes[place]
        return f"{table.where(place)}: {note['low']:g} to {note['high']:g}"

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
    _lossy,
    _names_like,
    _turned,
    _constant,
    _remarks,
)
