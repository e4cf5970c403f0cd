"""What the doctor finds: how bad it is, where it is, what it is, what to do about it, and in which files."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from imagier.tools.doctor.file_table import FileTable, Split


class Severity(enum.Enum):
    """How bad a finding is."""

    ERROR = "error"
    """A run would stop."""
    WARNING = "warning"
    """A run would go on, but probably not with what was meant."""


@dataclass(frozen=True)
class Row:
    """One of the things found."""

    text: str
    images: tuple[tuple[FileTable, int], ...] = ()
    """Files to look at: a column, and the place in it."""


class Rows:
    """All things found, each made when it is asked for: there may be a million of them."""

    def __init__(self, count: int, make: Callable[[int], Row]) -> None:
        self.count = count
        self.make = make

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Row]:
        return map(self.make, range(self.count))

    def first(self, most: int) -> list[Row]:
        """The first ones, so many or fewer."""
        return list(islice(self, most))


NO_ROWS = Rows(0, Row)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one place."""

    severity: Severity
    where: str
    what: str
    advice: str
    rows: Rows = NO_ROWS


def of_wrong_files(part: Split, wrong: int, of: int) -> Severity:
    """How bad it is that so many of a part's samples or files cannot be used. A run may skip a few, but not most."""
    return Severity.WARNING if part.skips and 2 * wrong <= of else Severity.ERROR


def files_of(table: FileTable, places: np.ndarray, text: Callable[[int], str] | None = None) -> Rows:
    """A row for each of these files: what `text` says of its place, else its name."""
    said = text or table.where

    def row(i: int) -> Row:
        place = int(places[i])
        return Row(said(place), ((table, place),))

    return Rows(len(places), row)


def number_of(count: int, thing: str, of: int | None = None) -> str:
    """ "1 file", "3 files", "3 of 20 files"."""
    many = thing if (of or count) == 1 else f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{count:,} {many}" if of is None else f"{count:,} of {of:,} {many}"
