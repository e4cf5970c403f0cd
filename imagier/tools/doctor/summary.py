"""Summary numbers of a data set: counts, sizes, values and classes per split and type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imagier.tools.doctor.diagnosis import Diagnosis
from imagier.tools.doctor.file_table import FileTable


@dataclass(frozen=True)
class TypeSummary:
    """One type of one split, formatted."""

    split: str
    input_type: str
    files: int
    read: int
    folders: int
    """Outermost folders; one per class in sets with classes."""
    sizes: str
    channels: str
    bits: str
    values: str


def summarize(diagnosis: Diagnosis) -> list[TypeSummary]:
    """One summary for each type of each split."""
    return [_summarize_table(table) for report in diagnosis.reports for table in report.tables]


def _summarize_table(table: FileTable) -> TypeSummary:
    notes = table.notes[table.readable]
    images = len(notes) > 0 and table.codec.has_pixels
    return TypeSummary(
        split=table.split.name,
        input_type=table.codec.name,
        files=len(table),
        read=len(notes),
        folders=len(table.folders),
        sizes=_format_sizes(notes) if images else "",
        channels=_format_set(notes["channels"]) if images else "",
        bits=_format_set(notes["bits"]) if images else "",
        values=f"{notes['low'].min():g} to {notes['high'].max():g}" if images else "",
    )


def _format_sizes(notes: np.ndarray) -> str:
    """ "64 x 64", or "48 to 600 x 64 to 800"."""
    sides = [(int(notes[side].min()), int(notes[side].max())) for side in ("height", "width")]
    return " x ".join(str(low) if low == high else f"{low} to {high}" for low, high in sides)


def _format_set(values: np.ndarray) -> str:
    return ", ".join(map(str, np.unique(values)))


@dataclass(frozen=True)
class Bin:
    """One bar of a distribution."""

    name: str
    count: int


def count_sizes(table: FileTable, most: int = 12) -> list[Bin]:
    """The most frequent sizes, with the number of files of each."""
    notes = table.notes[table.readable]
    sides = np.stack([notes["height"], notes["width"]], axis=1)
    sizes, counts = np.unique(sides, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    bins = [Bin(f"{sizes[i][0]} x {sizes[i][1]}", int(counts[i])) for i in order[:most]]
    rest = int(counts[order[most:]].sum())
    return [*bins, Bin(f"{len(sizes) - most} others", rest)] if rest else bins


_ASPECTS = (1 / 4, 1 / 2, 2 / 3, 3 / 4, 9 / 10, 10 / 9, 4 / 3, 3 / 2, 2, 4)
_ASPECT_NAMES = (
    "wider than 4:1",
    "4:1 to 2:1",
    "2:1 to 3:2",
    "3:2 to 4:3",
    "4:3 to 10:9",
    "square",
    "9:10 to 3:4",
    "3:4 to 2:3",
    "2:3 to 1:2",
    "1:2 to 1:4",
    "taller than 1:4",
)


def count_aspects(table: FileTable) -> list[Bin]:
    """Files per aspect ratio, from the widest to the tallest that occurs; empty if all have the same."""
    notes = table.notes[table.readable]
    ratios = notes["height"] / np.maximum(notes["width"], 1)
    counts = np.bincount(np.digitize(ratios, _ASPECTS), minlength=len(_ASPECT_NAMES))
    there = np.flatnonzero(counts)
    if len(there) < 2:
        return []
    return [Bin(_ASPECT_NAMES[i], int(counts[i])) for i in range(there[0], there[-1] + 1)]


@dataclass(frozen=True)
class ClassCount:
    """A class of a label map."""

    number: int
    pixels: Sequence[float]
    """Share of all pixels, by split."""
    files: Sequence[int]
    """Number of files with it, by split."""


def count_classes(tables: Sequence[FileTable]) -> list[ClassCount]:
    """Every class that the config knows or that occurs in tables of one type."""
    num_classes = tables[0].codec.num_classes or 0
    there = np.flatnonzero(sum(table.files for table in tables))
    totals = [max(int(table.pixels.sum()), 1) for table in tables]
    return [
        ClassCount(
            int(number),
            [float(table.pixels[number]) / total for table, total in zip(tables, totals)],
            [int(table.files[number]) for table in tables],
        )
        for number in np.union1d(np.arange(num_classes), there)
    ]
