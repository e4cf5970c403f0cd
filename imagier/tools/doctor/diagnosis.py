"""The whole examination of a data set: list, read, compare, conclude."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from imagier.tools.doctor.copies import identical, repeated, similar
from imagier.tools.doctor.file_table import FileTable, Split, listed
from imagier.tools.doctor.finding import Finding, Severity
from imagier.tools.doctor.of_files import faults_of_files
from imagier.tools.doctor.of_sets import faults_of_classes, faults_of_copies, faults_of_partners, faults_of_sizes
from imagier.tools.doctor.reading import Told, read_all

TRAIN = "train"

Bar = Callable[[str], AbstractContextManager[Told]]
"""Shows how far something has come: `with bar("reading files") as told: ... told(done, to_do)`."""


@dataclass(frozen=True)
class SplitReport:
    """A part with its columns, in the order of its types."""

    part: Split
    tables: Sequence[FileTable]


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor knows of a data set."""

    chapters: Sequence[SplitReport]
    findings: Sequence[Finding]
    """The errors first."""

    @property
    def errors(self) -> int:
        """Findings at which a run would stop."""
        return sum(finding.severity is Severity.ERROR for finding in self.findings)


def diagnose(
    parts: Sequence[Split], *, workers: int, bar: Bar, most: int | None = None, seconds: float | None = None
) -> Diagnosis:
    """Examines the parts of a data set.

    most, seconds: read only so many files of each type, and stop reading after so long; copies are not looked for then.
    """
    chapters, findings = [], []
    for part in parts:
        tables, problems = listed(part)
        chapters.append(SplitReport(part, tables))
        findings += [_not_listed(part, problem) for problem in problems]
    tables = [table for report in chapters for table in report.tables]
    with bar("reading files") as told:
        read_all(tables, workers=workers, told=told, most=most, seconds=seconds)
    for report in chapters:
        findings += _faults_of(report)
    for train, held_out in _tested(chapters):
        findings += faults_of_classes(train, held_out)
    if most is None:
        findings += _copies(chapters, workers, bar)
    return Diagnosis(chapters, sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR))


def _not_listed(part: Split, problem: str) -> Finding:
    where, _, rest = problem.partition(": ")
    what, _, advice = rest.partition("; ")
    return Finding(Severity.ERROR, f"{part.name}, {where}", what, advice)


def _faults_of(report: SplitReport) -> Iterator[Finding]:
    for table in report.tables:
        yield from faults_of_files(table)
    if all(len(table) for table in report.tables):
        if report.part.paired:
            yield from faults_of_partners(report.tables)
        yield from faults_of_sizes(report.part, report.tables)


def _tested(chapters: Sequence[SplitReport]) -> Iterator[tuple[FileTable, list[FileTable]]]:
    """Every column of the training set, and the columns of the same type of the other splits."""
    train = [table for report in chapters if report.part.name == TRAIN for table in report.tables]
    others = [table for report in chapters if report.part.name != TRAIN for table in report.tables]
    for table in train:
        yield table, [other for other in others if other.codec.name == table.codec.name]


def _copies(chapters: Sequence[SplitReport], workers: int, bar: Bar) -> Iterator[Finding]:
    for train, held_out in _tested(chapters):
        codec = train.codec
        if not codec.has_pixels or codec.holds_ids or codec.name in train.part.labels:
            continue  # two images may well have the same label
        for table in [] if train.part.clips else [train, *held_out]:  # frames of a video may well be the same
            yield from faults_of_copies(repeated(table), exact=True)
        for table in held_out:
            yield from faults_of_copies(identical(table, train), exact=True)
            with bar(f"comparing {table} with {train.part.name}") as told:
                found = similar(table, train, workers=workers, told=told)
            yield from faults_of_copies(found, exact=False)
