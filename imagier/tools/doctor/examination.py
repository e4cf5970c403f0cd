"""What `imagier data check` does: examines the splits of a config and reports what it found."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.run import build_data
from imagier.tools.doctor.check_page import as_json, page
from imagier.tools.doctor.diagnosis import Diagnosis, diagnose
from imagier.tools.doctor.finding import Finding, Severity
from imagier.tools.doctor.limits import QUICK_FILES, QUICK_SECONDS
from imagier.tools.doctor.splits import part, read_config, splits, write
from imagier.tools.doctor.summary import Line, summary
from imagier.tools.progress import progress
from imagier.train import runtime as runtimes

FILES_SHOWN = 3
MOST_WORKERS = 16
WIDTH_IN_FILES = 160
"""Columns of the table where there is no terminal that says how many it has."""

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
    """Examines the data of a config and prints what is wrong with them; whether a run would stop at it.

    html, json: files to write with everything that was found. workers: processes that read; None: one per core, at most
    16. is_quick: read a part of the files.
    """
    config = read_config(path, overrides)
    start = time.perf_counter()
    diagnosis = _diagnose(config, workers, is_quick)
    seconds = time.perf_counter() - start
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_IN_FILES)
    console.print(_counts(summary(diagnosis)))
    for finding in diagnosis.findings:
        console.print(_describe(finding), soft_wrap=True)
    console.print(_verdict(diagnosis, seconds), soft_wrap=True)
    if html is not None:
        text = page(diagnosis, title=path.stem, facts=_facts(diagnosis, seconds), quick=is_quick)
        write(html, [text])
        print(f"{html}: all of it, with images")
    if json is not None:
        write(json, as_json(diagnosis))
        print(f"{json}: all of it, with every file's name")
    return diagnosis.errors > 0


def _diagnose(config: Config, workers: int | None, is_quick: bool) -> Diagnosis:
    parts, missing = [], []
    for name, data, split in splits(config):
        try:
            parts.append(part(config, name, data, split))
        except UserError as error:
            missing.append(_finding(name, error))
    workers = workers if workers is not None else min(MOST_WORKERS, _cores())
    most, seconds = (QUICK_FILES, QUICK_SECONDS) if is_quick else (None, None)
    found = diagnose(parts, workers=workers, bar=progress, most=most, seconds=seconds)
    findings = [*missing, *found.findings]
    if not any(finding.severity is Severity.ERROR for finding in findings):
        findings = [*_cannot_be_made(config), *findings]
    return Diagnosis(found.chapters, findings)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _cannot_be_made(config: Config) -> list[Finding]:
    """What the data sets themselves refuse, for a reason that no file shows (too few samples, too many classes)."""
    findings = []
    runtime = runtimes.start("cpu", single=True, local_rank=None)
    try:
        for name, data, split in splits(config):
            try:
                if name == "train":
                    build_data.build_train_loader(config, runtime, seed=0)
                else:
                    build_data.build_dataset(data, split, seed=0)
            except UserError as error:
                findings.append(_finding(name, error))
    finally:
        runtimes.stop(runtime)
    return findings


def _finding(name: str, error: UserError) -> Finding:
    what = f"{error.where}: {error.what}" if error.where else error.what
    return Finding(Severity.ERROR, name, what, error.advice)


def _counts(lines: Sequence[Line]) -> Table:
    table = Table("split", "type", "files", "folders", "height x width", "channels", "bits", "values")
    for column in table.columns[:2]:
        column.no_wrap = True  # a name that is cut is none
    for column in table.columns[2:]:
        column.justify = "right"
    for line in lines:
        read = f"{line.files:,}" if line.read == line.files else f"{line.read:,} of {line.files:,}"
        table.add_row(
            line.part, line.kind, read, f"{line.folders:,}", line.sizes, line.channels, line.bits, line.values
        )
    return table


def _describe(finding: Finding) -> Text:
    """A finding in a few lines: what, the first files, what to do."""
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


def _verdict(diagnosis: Diagnosis, seconds: float) -> Text:
    errors, warnings = diagnosis.errors, len(diagnosis.findings) - diagnosis.errors
    verdict = "a run would stop at the errors" if errors else "a run would not stop at any of these files"
    count = f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"
    style = "bold red" if errors else "bold green"
    return Text.assemble((count, style), f": {verdict}; {_facts(diagnosis, seconds)}")


def _facts(diagnosis: Diagnosis, seconds: float) -> str:
    read = sum(len(table.seen) for report in diagnosis.chapters for table in report.tables)
    return f"{read:,} files read in {seconds:.1f} s"
