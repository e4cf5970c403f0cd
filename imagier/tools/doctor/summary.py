"""The findings' background in numbers: what there is of each type in each split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imagier.tools.doctor.diagnosis import Diagnosis
from imagier.tools.doctor.file_table import FileTable


@dataclass(frozen=True)
class Line:
    """A type of a split, in words."""

    part: str
    kind: str
    files: int
    read: int
    folders: int
    """Outermost ones: in sets with classes, a class each."""
    sizes: str
    channels: str
    bits: str
    values: str


def summary(diagnosis: Diagnosis) -> list[Line]:
    """A line for every type of every split."""
    return [_line(table) for report in diagnosis.chapters for table in report.tables]


def _line(table: FileTable) -> Line:
    notes = table.notes[table.seen]
    images = len(notes) > 0 and table.codec.has_pixels
    return Line(
        part=table.part.name,
        kind=table.codec.name,
        files=len(table),
        read=len(notes),
        folders=len(table.folders),
        sizes=_sizes(notes) if images else "",
        channels=_set(notes["channels"]) if images else "",
        bits=_set(notes["bits"]) if images else "",
        values=f"{notes['low'].min():g} to {notes['high'].max():g}" if images else "",
    )


def _sizes(notes: np.ndarray) -> str:
    """ "64 x 64", or "48 to 600 x 64 to 800"."""
    sides = [(int(notes[side].min()), int(notes[side].max())) for side in ("height", "width")]
    return " x ".join(str(low) if low == high else f"{low} to {high}" for low, high in sides)


def _set(values: np.ndarray) -> str:
    return ", ".join(map(str, np.unique(values)))


@dataclass(frozen=True)
class Bin:
    """One bar of a distribution."""

    name: str
    count: int


def common_sizes(table: FileTable, most: int = 12) -> list[Bin]:
    """The most frequent sizes, and how many files have them."""
    notes = table.notes[table.seen]
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


def aspects(table: FileTable) -> list[Bin]:
    """How many files have which shape, from the widest to the tallest there is; nothing if all have one."""
    notes = table.notes[table.seen]
    ratios = notes["height"] / np.maximum(notes["width"], 1)
    counts = np.bincount(np.digitize(ratios, _ASPECTS), minlength=len(_ASPECT_NAMES))
    there = np.flatnonzero(counts)
    if len(there) < 2:
        return []
    return [Bin(_ASPECT_NAMES[i], int(counts[i])) for i in range(there[0], there[-1] + 1)]


@dataclass(frozen=True)
class ClassLine:
    """A class of a label map."""

    number: int
    pixels: Sequence[float]
    """Its share of all pixels, by split."""
    files: Sequence[int]
    """Files that hold it, by split."""


def classes(tables: Sequence[FileTable]) -> list[ClassLine]:
    """Every class that occurs in columns of the same type, or that the config knows."""
    known = tables[0].codec.num_classes or 0
    there = np.flatnonzero(sum(table.files for table in tables))
    totals = [max(int(table.pixels.sum()), 1) for table in tables]
    return [
        ClassLine(
            int(number),
            [float(table.pixels[number]) / total for table, total in zip(tables, totals)],
            [int(table.files[number]) for table in tables],
        )
        for number in np.union1d(np.arange(known), there)
    ]
