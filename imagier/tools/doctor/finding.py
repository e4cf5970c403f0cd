"""A finding of the doctor: severity, place, fault, advice, files."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from imagier.tools.doctor.file_table import FileTable, Split


class Severity(enum.Enum):
    """The severity of a finding."""

    ERROR = "error"
    """A run would stop."""
    WARNING = "warning"
    """A run would continue, but probably not with the intended data."""


@dataclass(frozen=True)
class Row:
    """One file, or pair of files, of a finding."""

    text: str
    images: tuple[tuple[FileTable, int], ...] = ()
    """Files to show: a table, and an index in it."""


class Rows:
    """The rows of a finding. Each is made on demand, since there may be millions."""

    def __init__(self, count: int, make: Callable[[int], Row]) -> None:
        self.count = count
        self.make = make

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Row]:
        return map(self.make, range(self.count))

    def first(self, count: int) -> list[Row]:
        """The first `count` rows, or all if there are fewer."""
        return list(islice(self, count))


NO_ROWS = Rows(0, Row)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one place, such as unreadable files of one type."""

    severity: Severity
    where: str
    what: str
    advice: str
    rows: Rows = NO_ROWS


def rate_wrong_files(split: Split, wrong: int, of: int) -> Severity:
    """The severity of `wrong` unusable files or samples among `of`. A run may skip a few, but not most."""
    return Severity.WARNING if split.should_skip and 2 * wrong <= of else Severity.ERROR


def make_rows(table: FileTable, indices: np.ndarray, text: Callable[[int], str] | None = None) -> Rows:
    """A row for each of these files, with `text` of its index, or its name if `text` is None."""
    describe = text or table.where

    def row(i: int) -> Row:
        index = int(indices[i])
        return Row(describe(index), ((table, index),))

    return Rows(len(indices), row)


def format_count(count: int, thing: str, of: int | None = None) -> str:
    """ "1 file", "3 files", "3 of 20 files"."""
    noun = thing if (of or count) == 1 else f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{count:,} {noun}" if of is None else f"{count:,} of {of:,} {noun}"
