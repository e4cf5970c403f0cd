"""`imagier data check`: examines the splits of a config and reports what is wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagier.config.check import Config
from imagier.data.sources.source import Source
from imagier.errors import UserError
from imagier.run import build_data
from imagier.run.progress import show_progress
from imagier.run.workers import count_cores
from imagier.tools.doctor.check_page import format_json, render_page
from imagier.tools.doctor.diagnosis import Diagnosis, diagnose
from imagier.tools.doctor.finding import Finding, Severity
from imagier.tools.doctor.limits import QUICK_FILES, QUICK_SECONDS
from imagier.tools.doctor.splits import describe_split, list_splits, read_config, write_text
from imagier.tools.doctor.summary import TypeSummary, summarize
from imagier.train import runtime as runtimes

FILES_SHOWN = 3
MAX_WORKERS = 16
WIDTH_IN_FILES = 160
"""Characters per line where the output is not a terminal."""

_COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def examine(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    html: Path | None = None,
    json: Path | None = None,
    workers: int | None = None,
    is_quick: bool = False,
) -> bool:
    """Examines the data of a config and prints what is wrong with it. Returns whether a run would stop.

    html, json: files for the complete report. workers: processes that read; None means one per core, at most 16.
    is_quick: read only some of the files.
    """
    config = read_config(path, overrides)
    start = time.perf_counter()
    diagnosis = _diagnose(config, workers, is_quick)
    seconds = time.perf_counter() - start
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_IN_FILES)
    console.print(_make_table(summarize(diagnosis)))
    for finding in diagnosis.findings:
        console.print(_format_finding(finding), soft_wrap=True)
    console.print(_make_verdict(diagnosis, seconds), soft_wrap=True)
    if html is not None:
        text = render_page(diagnosis, title=path.stem, facts=_describe_reading(diagnosis, seconds), is_quick=is_quick)
        write_text(html, [text])
        print(f"{html}: the full report, with images")
    if json is not None:
        write_text(json, format_json(diagnosis))
        print(f"{json}: the full report, with the name of every file")
    return diagnosis.errors > 0


def _diagnose(config: Config, workers: int | None, is_quick: bool) -> Diagnosis:
    described, missing = [], []
    for name, data, split in list_splits(config):
        try:
            described.append(describe_split(config, name, data, split))
        except UserError as error:
            missing.append(_make_finding(name, error))
    workers = workers if workers is not None else min(MAX_WORKERS, count_cores())
    most, seconds = (QUICK_FILES, QUICK_SECONDS) if is_quick else (None, None)
    found = diagnose(described, workers=workers, progress=show_progress, most=most, seconds=seconds)
    findings = [*missing, *found.findings]
    if not any(finding.severity is Severity.ERROR for finding in findings):
        findings = [*_find_build_errors(config, {split.name: split.sources for split in described}), *findings]
    return Diagnosis(found.reports, findings)


def _find_build_errors(config: Config, sources: Mapping[str, Sequence[Source]]) -> list[Finding]:
    """Errors of the data sets themselves, which no single file shows: too few samples, too many classes.

    sources: those of each split, opened already.
    """
    findings = []
    runtime = runtimes.start("cpu", single=True, local_rank=None)
    try:
        for name, data, split in list_splits(config):
            try:
                if name == "train":
                    build_data.build_train_loader(config, runtime, seed=0, stores=sources[name])
                else:
                    build_data.build_dataset(data, split, seed=0, stores=sources[name])
            except UserError as error:
                findings.append(_make_finding(name, error))
    finally:
        runtimes.stop(runtime)
    return findings


def _make_finding(name: str, error: UserError) -> Finding:
    what = f"{error.where}: {error.what}" if error.where else error.what
    return Finding(Severity.ERROR, name, what, error.advice)


def _make_table(lines: Sequence[TypeSummary]) -> Table:
    table = Table("split", "type", "files", "folders", "height x width", "channels", "bits", "values")
    for column in table.columns[:2]:
        column.no_wrap = True  # never cut a name
    for column in table.columns[2:]:
        column.justify = "right"
    for line in lines:
        read = f"{line.files:,}" if line.read == line.files else f"{line.read:,} of {line.files:,}"
        table.add_row(
            line.split, line.input_type, read, f"{line.folders:,}", line.sizes, line.channels, line.bits, line.values
        )
    return table


def _format_finding(finding: Finding) -> Text:
    """A finding in a few lines: what is wrong, the first files, what to do."""
    color = _COLORS[finding.severity]
    text = Text()
    text.append(f"{finding.severity.value:8}", style=f"bold {color}")
    text.append(f"{finding.where}: {finding.what}\n")
    for row in finding.rows.first(FILES_SHOWN):
        text.append(f"          {row.text}\n", style="dim")
    if len(finding.rows) > FILES_SHOWN:
        text.append(f"          ... and {len(finding.rows) - FILES_SHOWN:,} more\n", style="dim")
    if finding.advice:
        text.append(f"        → {finding.advice}\n")
    return text


def _make_verdict(diagnosis: Diagnosis, seconds: float) -> Text:
    errors, warnings = diagnosis.errors, len(diagnosis.findings) - diagnosis.errors
    verdict = "a run would stop" if errors else "a run would not stop"
    count = f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"
    style = "bold red" if errors else "bold green"
    return Text.assemble((count, style), f": {verdict}; {_describe_reading(diagnosis, seconds)}")


def _describe_reading(diagnosis: Diagnosis, seconds: float) -> str:
    read = sum(len(table.readable) for report in diagnosis.reports for table in report.tables)
    return f"{read:,} files read in {seconds:.1f} s"
