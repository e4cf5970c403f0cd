"""The examination of a data set: list its files, read them, find faults, find duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imagier.errors import UserError
from imagier.run.progress import ProgressBar
from imagier.tools.doctor.copies import find_identical, find_repeated, find_similar
from imagier.tools.doctor.file_faults import find_file_faults
from imagier.tools.doctor.file_table import FileTable, Split, list_files
from imagier.tools.doctor.finding import Finding, Severity
from imagier.tools.doctor.reading import read_all
from imagier.tools.doctor.split_faults import find_class_faults, find_partner_faults, find_size_faults, report_copies

TRAIN = "train"


@dataclass(frozen=True)
class SplitReport:
    """A split with its file tables, in the order of its types."""

    split: Split
    tables: Sequence[FileTable]


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a data set."""

    reports: Sequence[SplitReport]
    findings: Sequence[Finding]
    """Errors first."""

    @property
    def errors(self) -> int:
        """Number of findings that would stop a run."""
        return sum(finding.severity is Severity.ERROR for finding in self.findings)


def diagnose(
    splits: Sequence[Split],
    *,
    workers: int,
    progress: ProgressBar,
    most: int | None = None,
    seconds: float | None = None,
) -> Diagnosis:
    """Examines the splits of a data set.

    most, seconds: limits for a quick check: files to read per type, and time for reading. It does not look for copies.
    """
    reports: list[SplitReport] = []
    findings: list[Finding] = []
    for split in splits:
        tables, problems = list_files(split)
        reports.append(SplitReport(split, tables))
        findings += [_describe_problem(split, problem) for problem in problems]
    tables = [table for report in reports for table in report.tables]
    with progress("reading files") as update:
        read_all(tables, workers=workers, update=update, most=most, seconds=seconds)
    for report in reports:
        findings += _find_faults(report)
    for train, held_out in _pair_with_held_out(reports):
        findings += find_class_faults(train, held_out)
    if most is None:
        findings += _find_copies(reports, workers, progress)
    return Diagnosis(reports, sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR))


def _describe_problem(split: Split, error: UserError) -> Finding:
    where = f"{split.name}, {error.where}" if error.where else split.name
    return Finding(Severity.ERROR, where, error.what, error.advice)


def _find_faults(report: SplitReport) -> Iterator[Finding]:
    for table in report.tables:
        yield from find_file_faults(table)
    if all(len(table) for table in report.tables):
        if report.split.is_paired:
            yield from find_partner_faults(report.tables)
        yield from find_size_faults(report.split, report.tables)


def _pair_with_held_out(reports: Sequence[SplitReport]) -> Iterator[tuple[FileTable, list[FileTable]]]:
    """Every table of the training set, with the tables of the same type in the other splits."""
    train = [table for report in reports if report.split.name == TRAIN for table in report.tables]
    others = [table for report in reports if report.split.name != TRAIN for table in report.tables]
    for table in train:
        yield table, [other for other in others if other.codec.name == table.codec.name]


def _find_copies(reports: Sequence[SplitReport], workers: int, progress: ProgressBar) -> Iterator[Finding]:
    for train, held_out in _pair_with_held_out(reports):
        codec = train.codec
        if not codec.has_pixels or codec.holds_ids or codec.name in train.split.labels:
            continue  # different images may have the same label
        for table in [] if train.split.is_video else [train, *held_out]:  # a video may repeat frames
            yield from report_copies(find_repeated(table), exact=True)
        for table in held_out:
            yield from report_copies(find_identical(table, train), exact=True)
            with progress(f"comparing {table} with {train.split.name}") as update:
                found = find_similar(table, train, workers=workers, update=update)
            yield from report_copies(found, exact=False)
