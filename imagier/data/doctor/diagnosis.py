"""The whole examination of a data set: list, read, compare, conclude."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from imagier.data.doctor.column import Column, Part, listed
from imagier.data.doctor.copies import identical, repeated, similar
from imagier.data.doctor.finding import Finding, Severity
from imagier.data.doctor.of_files import faults_of_files
from imagier.data.doctor.of_sets import faults_of_classes, faults_of_copies, faults_of_partners, faults_of_sizes
from imagier.data.doctor.reading import Told, read_all

TRAIN = "train"

Bar = Callable[[str], AbstractContextManager[Told]]
"""Shows how far something has come: `with bar("reading files") as told: ... told(done, to_do)`."""


@dataclass(frozen=True)
class Chapter:
    """A part with its columns, in the order of its types."""

    part: Part
    columns: Sequence[Column]


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor knows of a data set."""

    chapters: Sequence[Chapter]
    findings: Sequence[Finding]
    """The errors first."""

    @property
    def errors(self) -> int:
        """Findings at which a run would stop."""
        return sum(finding.severity is Severity.ERROR for finding in self.findings)


def diagnose(
    parts: Sequence[Part], *, workers: int, bar: Bar, most: int | None = None, seconds: float | None = None
) -> Diagnosis:
    """Examines the parts of a data set.

    most, seconds: read only so many files of each type, and stop reading after so long; copies are not looked for then.
    """
    chapters, findings = [], []
    for part in parts:
        columns, problems = listed(part)
        chapters.append(Chapter(part, columns))
        findings += [_not_listed(part, problem) for problem in problems]
    columns = [column for chapter in chapters for column in chapter.columns]
    with bar("reading files") as told:
        read_all(columns, workers=workers, told=told, most=most, seconds=seconds)
    for chapter in chapters:
        findings += _faults_of(chapter)
    for train, held_out in _tested(chapters):
        findings += faults_of_classes(train, held_out)
    if most is None:
        findings += _copies(chapters, workers, bar)
    return Diagnosis(chapters, sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR))


def _not_listed(part: Part, problem: str) -> Finding:
    where, _, rest = problem.partition(": ")
    what, _, advice = rest.partition("; ")
    return Finding(Severity.ERROR, f"{part.name}, {where}", what, advice)


def _faults_of(chapter: Chapter) -> Iterator[Finding]:
    for column in chapter.columns:
        yield from faults_of_files(column)
    if all(len(column) for column in chapter.columns):
        if chapter.part.paired:
            yield from faults_of_partners(chapter.columns)
        yield from faults_of_sizes(chapter.part, chapter.columns)


def _tested(chapters: Sequence[Chapter]) -> Iterator[tuple[Column, list[Column]]]:
    """Every column of the training set, and the columns of the same type of the other splits."""
    train = [column for chapter in chapters if chapter.part.name == TRAIN for column in chapter.columns]
    others = [column for chapter in chapters if chapter.part.name != TRAIN for column in chapter.columns]
    for column in train:
        yield column, [other for other in others if other.kind.name == column.kind.name]


def _copies(chapters: Sequence[Chapter], workers: int, bar: Bar) -> Iterator[Finding]:
    for train, held_out in _tested(chapters):
        if train.kind.is_points or train.kind.is_mask or train.kind.name in train.part.labels:
            continue  # two pictures may well have the same label
        for column in [] if train.part.clips else [train, *held_out]:  # frames of a video may well be the same
            yield from faults_of_copies(repeated(column), exact=True)
        for column in held_out:
            yield from faults_of_copies(identical(column, train), exact=True)
            with bar(f"comparing {column} with {train.part.name}") as told:
                found = similar(column, train, workers=workers, told=told)
            yield from faults_of_copies(found, exact=False)
