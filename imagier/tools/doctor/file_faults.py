"""Faults of single files, found in the notes of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from imagier.data.codecs.mask import NOTHING
from imagier.data.doubts import find_unmarked_classes, find_without_class
from imagier.tools.doctor.file_stats import WRONG, Flag
from imagier.tools.doctor.file_table import FileTable
from imagier.tools.doctor.finding import Finding, Severity, format_count, make_rows, rate_wrong_files

_BATCH_FIELDS = {"bits": "bits", "channels": "channels"}
"""Fields of a note that must agree within a batch, with their names in messages."""

Rule = Callable[[FileTable], Iterator[Finding]]


def find_file_faults(table: FileTable) -> Iterator[Finding]:
    """Faults of the files of a table, each file by itself."""
    for rule in _RULES:
        yield from rule(table)


def _find_unreadable(table: FileTable) -> Iterator[Finding]:
    yield from _report_flagged(
        table,
        Flag.UNREADABLE,
        "file",
        "cannot be read",
        "restore them, or remove them from the set",
    )


def _find_wrong_forms(table: FileTable) -> Iterator[Finding]:
    yield from _report_flagged(
        table,
        Flag.WRONG_FORM,
        "file",
        "of another form (channels, bits) than the config expects",
        f"convert them, or correct what the config says of {table.codec.name}",
    )


def _find_wrong_classes(table: FileTable) -> Iterator[Finding]:
    indices, classes = table.find_flagged(Flag.WRONG_CLASS), table.codec.num_classes
    if not len(indices) or classes is None:
        return
    ids = [int(i) for i in np.flatnonzero(table.files) if i >= classes and i != NOTHING]
    shown = ", ".join(f"{i} (in {format_count(int(table.files[i]), 'file')})" for i in ids[:8])
    yield Finding(
        rate_wrong_files(table.split, len(indices), table.num_opened),
        str(table),
        f"{format_count(len(indices), 'map', table.num_opened)} with classes beyond {classes - 1}, the last one of "
        f"one_hot_num_classes.{table.codec.name}: {shown}{', ...' if len(ids) > 8 else ''}",
        "correct the maps or the number, or set use_dont_care: true, which makes one class of all others",
        make_rows(table, indices, table.message),
    )


def _find_not_finite(table: FileTable) -> Iterator[Finding]:
    yield from _report_flagged(
        table,
        Flag.NOT_FINITE,
        "file",
        "with values that are no numbers (NaN) or infinite",
        "replace those values; a single one makes all losses NaN",
    )


def _report_remarks(table: FileTable) -> Iterator[Finding]:
    """Remarks of the codec."""
    thing = "map" if table.codec.holds_ids else "image" if table.codec.has_pixels else "file"
    text = None if table.codec.holds_ids else _describe_range(table)
    for remark, indices in table.remarks.items():
        count = format_count(len(indices), thing, len(table.readable))
        rows = make_rows(table, np.array(indices), text)
        yield Finding(Severity.WARNING, str(table), f"{count} {remark.what}", remark.advice, rows)


def _find_lossy(table: FileTable) -> Iterator[Finding]:
    if table.codec.holds_ids:
        yield from _report_flagged(
            table,
            Flag.LOSSY,
            "map",
            "in a format that changes the values of pixels (JPEG)",
            "save the maps as PNG, from their originals: what JPEG has changed, a PNG made of it keeps",
            Severity.WARNING,
        )


def _find_rotated(table: FileTable) -> Iterator[Finding]:
    yield from _report_flagged(
        table,
        Flag.ROTATED,
        "file",
        "turned when read, as their EXIF data say",
        "see in `imagier data preview` whether they stand upright and fit their partners; if not, turn the files",
        Severity.WARNING,
    )


def _find_constant(table: FileTable) -> Iterator[Finding]:
    indices = table.find_flagged(Flag.CONSTANT)
    if table.codec.holds_ids or not len(indices):
        return
    black = int(np.count_nonzero(table.notes["high"][indices] == 0))
    yield Finding(
        Severity.WARNING,
        str(table),
        f"{format_count(len(indices), 'image', len(table.readable))} of one color, {black:,} of them black",
        "look at them; remove what is empty or was damaged",
        make_rows(table, indices),
    )


def _find_mixed_forms(table: FileTable) -> Iterator[Finding]:
    """Files whose channels, bits or numbers of points differ, which cannot share a batch."""
    usable = table.readable[table.notes["flags"][table.readable] & WRONG == 0]
    if table.split.batch_size == 1 or not len(usable):
        return
    fields = {"height": "points", "width": "numbers a point"} if not table.codec.has_pixels else _BATCH_FIELDS
    for field, noun in fields.items():
        values, counts = np.unique(table.notes[field][usable], return_counts=True)
        if len(values) == 1:
            continue
        usual = values[counts.argmax()]
        rare = usable[table.notes[field][usable] != usual]
        shown = " and ".join(f"{value} ({count:,})" for value, count in zip(values, counts))
        yield Finding(
            Severity.ERROR,
            str(table),
            f"files of {shown} {noun}, which no batch can hold together",
            f"convert the {format_count(len(rare), 'file')} to {usual} {noun}, or use batch_size: 1",
            make_rows(table, rare),
        )


def _find_without_class(table: FileTable) -> Iterator[Finding]:
    """Class maps in which many pixels have no class, or all but one class."""
    doubt = find_without_class(table.codec, table.pixels)
    if doubt is not None and doubt.advice:
        yield Finding(Severity.WARNING, str(table), doubt.what, doubt.advice)


def _find_unmarked_class_maps(table: FileTable) -> Iterator[Finding]:
    """Class maps that the config treats as images, or as other ids."""
    codec = table.codec
    if codec.num_classes is not None or codec.name not in table.split.plain_labels or not len(table.readable):
        return
    notes = table.notes[table.readable]
    if (notes["bits"] == 8).all() and (notes["channels"] == 1).all():
        doubt = find_unmarked_classes(codec, table.pixels)
        if doubt is not None:
            yield Finding(Severity.WARNING, str(table), doubt.what, doubt.advice)


def _report_flagged(
    table: FileTable, flag: Flag, thing: str, what: str, advice: str, severity: Severity | None = None
) -> Iterator[Finding]:
    indices = table.find_flagged(flag)
    if len(indices):
        yield Finding(
            severity or rate_wrong_files(table.split, len(indices), table.num_opened),
            str(table),
            f"{format_count(len(indices), thing, table.num_opened)} {what}",
            advice,
            make_rows(table, indices, table.message),
        )


def _describe_range(table: FileTable) -> Callable[[int], str]:
    def text(index: int) -> str:
        note = table.notes[index]
        return f"{table.where(index)}: {note['low']:g} to {note['high']:g}"

    return text


_RULES: tuple[Rule, ...] = (
    _find_unreadable,
    _find_wrong_forms,
    _find_wrong_classes,
    _find_not_finite,
    _find_mixed_forms,
    _find_lossy,
    _find_without_class,
    _find_unmarked_class_maps,
    _find_rotated,
    _find_constant,
    _report_remarks,
)
