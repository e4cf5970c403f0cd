"""The report of `imagier data check`: a self-contained HTML page, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from imagier.data.codecs.class_map import class_colors
from imagier.data.codecs.mask import NOTHING
from imagier.errors import UserError
from imagier.tools.doctor import summary
from imagier.tools.doctor.diagnosis import Diagnosis
from imagier.tools.doctor.file_stats import load_image
from imagier.tools.doctor.file_table import FileTable
from imagier.tools.doctor.finding import Finding
from imagier.tools.doctor.images import PageImage, load_template, show, to_css
from imagier.tools.doctor.summary import Bin

ROWS, IMAGES, EXAMPLES = 1000, 12, 5
IMAGE_PX, EXAMPLE_PX = 150, 88
MAX_FOLDERS = 60
_LONGEST_CAPTION = 24


def render_page(diagnosis: Diagnosis, *, title: str, facts: str, is_quick: bool) -> str:
    """The report as one HTML file that loads nothing from elsewhere. facts: a line under the title."""
    tables = [table for report in diagnosis.reports for table in report.tables]
    return load_template("check.html").render(
        title=title,
        facts=facts,
        is_quick=is_quick,
        errors=diagnosis.errors,
        warnings=len(diagnosis.findings) - diagnosis.errors,
        lines=[(line, _show_examples(table)) for line, table in zip(summary.summarize(diagnosis), tables)],
        findings=[_render_finding(finding) for finding in diagnosis.findings],
        classes=_tabulate_classes(tables),
        sizes=_tabulate_sizes(tables),
        folders=_tabulate_folders(tables),
    )


def format_json(diagnosis: Diagnosis) -> Iterator[str]:
    """The findings with all their rows as JSON, in pieces, since there may be millions of rows."""
    lines = [_rename_keys(asdict(line)) for line in summary.summarize(diagnosis)]
    yield f'{{\n "files": {json.dumps(lines, indent=1)},\n "findings": ['
    for number, finding in enumerate(diagnosis.findings):
        head = {"severity": finding.severity.value, "where": finding.where, "what": finding.what}
        start = json.dumps({**head, "advice": finding.advice})[:-1]
        yield f'{"," if number else ""}\n  {start}, "count": {len(finding.rows)}, "rows": ['
        for i, row in enumerate(finding.rows):
            yield f"{',' if i else ''}\n   {json.dumps(row.text)}"
        yield "]}"
    yield "\n ]\n}\n"


def _rename_keys(line: dict[str, Any]) -> dict[str, Any]:
    """Keeps the keys of the JSON as they have always been: programs read it."""
    return {"part": line.pop("split"), "kind": line.pop("input_type"), **line}


def _show_examples(table: FileTable) -> list[PageImage]:
    """A few images, spread evenly over a table."""
    readable = table.readable
    count = min(EXAMPLES, len(readable))
    indices = [int(readable[i * len(readable) // count]) for i in range(count)]
    return [one for index in indices for one in _show_file(table, index, EXAMPLE_PX)]


def _render_finding(finding: Finding) -> dict[str, Any]:
    gallery = []
    for row in finding.rows.first(IMAGES):
        images = [one for table, index in row.images for one in _show_file(table, index, IMAGE_PX)]
        if images:
            gallery.append((_shorten(row.text), images))
    return {
        "severity": finding.severity.value,
        "where": finding.where,
        "what": finding.what,
        "advice": finding.advice,
        "count": len(finding.rows),
        "rows": [row.text for row in finding.rows.first(ROWS)],
        "gallery": gallery,
    }


def _show_file(table: FileTable, index: int, side_px: int) -> list[PageImage]:
    """The image as a list of one; an empty list if the file has no pixels or cannot be read."""
    if not table.codec.has_pixels:
        return []
    try:
        array = load_image(*table.items[index], table.codec)
    except UserError:
        return []
    return [show(array, table.codec, table.where(index), side_px)]


def _shorten(text: str) -> str:
    """A caption: file names without their folders, and without a long message, which the list below repeats."""
    name, _, message = text.partition(": ")
    if len(message) > _LONGEST_CAPTION:
        text = name
    return " ".join(word.rpartition("/")[2] if word.count("/") > 1 else word for word in text.split(" "))


def _tabulate_classes(tables: Sequence[FileTable]) -> list[tuple[str, list[str], list[dict[str, Any]], float]]:
    """For every type with classes: its name, the splits, a row per class, the largest share."""
    found = []
    for name in dict.fromkeys(table.codec.name for table in tables if table.codec.num_classes is not None):
        of_type = [table for table in tables if table.codec.name == name and len(table.readable)]
        if not of_type:
            continue
        input_type = of_type[0].codec.input_type
        num_classes = input_type.num_classes or 0
        is_any_allowed = input_type.use_dont_care or input_type.dont_care is not None
        colors = class_colors(num_classes)
        lines = summary.count_classes(of_type)
        rows = [
            {
                **asdict(line),
                "color": to_css(colors[line.number]),
                "beyond": num_classes <= line.number != NOTHING and not is_any_allowed,
                "percent": " / ".join(map(_format_percent, line.pixels)),
            }
            for line in lines
        ]
        most = max((share for line in lines for share in line.pixels), default=0.0) or 1.0
        found.append((name, [table.split.name for table in of_type], rows, most))
    return found


def _format_percent(share: float) -> str:
    return "0" if share == 0 else "<0.01%" if share < 1e-4 else f"{share:.2%}" if share < 0.01 else f"{share:.1%}"


def _tabulate_sizes(tables: Sequence[FileTable]) -> list[tuple[str, list[Bin], list[Bin]]]:
    """Distributions of sizes and aspect ratios, for tables with more than one size."""
    found = []
    for table in tables:
        if not table.codec.has_pixels:
            continue
        common = summary.count_sizes(table)
        if len(common) > 1:
            found.append((str(table), common, summary.count_aspects(table)))
    return found


def _tabulate_folders(tables: Sequence[FileTable]) -> list[tuple[str, list[Bin]]]:
    """Files per outermost folder, for tables with several folders."""
    found = []
    for table in tables:
        counts = [Bin(name, count) for name, count in table.folders.items()]
        if len(counts) > 1:
            rest = sum(bin_.count for bin_ in counts[MAX_FOLDERS:])
            more = [Bin(f"{len(counts) - MAX_FOLDERS} others", rest)] if rest else []
            found.append((str(table), [*counts[:MAX_FOLDERS], *more]))
    return found
