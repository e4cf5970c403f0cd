"""What the doctor found, as a page that opens anywhere and as JSON."""

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
from imagier.tools.doctor.file_stats import image
from imagier.tools.doctor.file_table import FileTable
from imagier.tools.doctor.finding import Finding
from imagier.tools.doctor.images import Shown, css, show, template
from imagier.tools.doctor.summary import Bin

ROWS, IMAGES, EXAMPLES = 1000, 12, 5
IMAGE_PX, EXAMPLE_PX = 150, 88
MOST_FOLDERS = 60
_LONGEST_CAPTION = 24


def page(diagnosis: Diagnosis, *, title: str, facts: str, quick: bool) -> str:
    """The page as HTML; it needs nothing from elsewhere. facts: a line about what was done."""
    tables = [table for report in diagnosis.chapters for table in report.tables]
    return template("check.html").render(
        title=title,
        facts=facts,
        quick=quick,
        errors=diagnosis.errors,
        warnings=len(diagnosis.findings) - diagnosis.errors,
        lines=[(line, _examples(table)) for line, table in zip(summary.summary(diagnosis), tables)],
        findings=[_finding(finding) for finding in diagnosis.findings],
        classes=_classes(tables),
        sizes=_sizes(tables),
        folders=_folders(tables),
    )


def as_json(diagnosis: Diagnosis) -> Iterator[str]:
    """The findings with all their rows, in pieces: there may be very many."""
    lines = [asdict(line) for line in summary.summary(diagnosis)]
    yield f'{{\n "files": {json.dumps(lines, indent=1)},\n "findings": ['
    for number, finding in enumerate(diagnosis.findings):
        head = {"severity": finding.severity.value, "where": finding.where, "what": finding.what}
        start = json.dumps({**head, "advice": finding.advice})[:-1]
        yield f'{"," if number else ""}\n  {start}, "count": {len(finding.rows)}, "rows": ['
        for i, row in enumerate(finding.rows):
            yield f"{',' if i else ''}\n   {json.dumps(row.text)}"
        yield "]}"
    yield "\n ]\n}\n"


def _examples(table: FileTable) -> list[Shown]:
    """A few images from all over a column."""
    seen = table.seen
    count = min(EXAMPLES, len(seen))
    places = [int(seen[i * len(seen) // count]) for i in range(count)]
    return [one for place in places for one in _shown(table, place, EXAMPLE_PX)]


def _finding(finding: Finding) -> dict[str, Any]:
    gallery = []
    for row in finding.rows.first(IMAGES):
        images = [one for table, place in row.images for one in _shown(table, place, IMAGE_PX)]
        if images:
            gallery.append((_short(row.text), images))
    return {
        "severity": finding.severity.value,
        "where": finding.where,
        "what": finding.what,
        "advice": finding.advice,
        "count": len(finding.rows),
        "rows": [row.text for row in finding.rows.first(ROWS)],
        "gallery": gallery,
    }


def _shown(table: FileTable, place: int, side_px: int) -> list[Shown]:
    """The image, or none where there is none to be seen."""
    if not table.codec.has_pixels:
        return []
    try:
        array = image(*table.items[place], table.codec)
    except UserError:
        return []
    return [show(array, table.codec, table.where(place), side_px)]


def _short(text: str) -> str:
    """The text without the folders of the files in it, and without a long explanation, which stands below."""
    name, _, words = text.partition(": ")
    if len(words) > _LONGEST_CAPTION:
        text = name
    return " ".join(word.rpartition("/")[2] if word.count("/") > 1 else word for word in text.split(" "))


def _classes(tables: Sequence[FileTable]) -> list[tuple[str, list[str], list[dict[str, Any]], float]]:
    """For every type with classes: its name, the splits, a row for each class, the largest share."""
    found = []
    for name in dict.fromkeys(table.codec.name for table in tables if table.codec.num_classes is not None):
        of_type = [table for table in tables if table.codec.name == name and len(table.seen)]
        if not of_type:
            continue
        input_type = of_type[0].codec.input_type
        known = input_type.num_classes or 0
        any_goes = input_type.use_dont_care or input_type.dont_care is not None
        colors = class_colors(known)
        lines = summary.classes(of_type)
        rows = [
            {
                **asdict(line),
                "color": css(colors[line.number]),
                "beyond": known <= line.number != NOTHING and not any_goes,
                "percent": " / ".join(map(_percent, line.pixels)),
            }
            for line in lines
        ]
        most = max((share for line in lines for share in line.pixels), default=0.0) or 1.0
        found.append((name, [table.part.name for table in of_type], rows, most))
    return found


def _percent(share: float) -> str:
    return "0" if share == 0 else "<0.01%" if share < 1e-4 else f"{share:.2%}" if share < 0.01 else f"{share:.1%}"


def _sizes(tables: Sequence[FileTable]) -> list[tuple[str, list[Bin], list[Bin]]]:
    """The distribution of sizes of the columns that hold more than one."""
    found = []
    for table in tables:
        if not table.codec.has_pixels:
            continue
        common = summary.common_sizes(table)
        if len(common) > 1:
            found.append((str(table), common, summary.aspects(table)))
    return found


def _folders(tables: Sequence[FileTable]) -> list[tuple[str, list[Bin]]]:
    """Files by outermost folder, of the columns that have several folders."""
    found = []
    for table in tables:
        counts = [Bin(name, count) for name, count in table.folders.items()]
        if len(counts) > 1:
            rest = sum(one.count for one in counts[MOST_FOLDERS:])
            more = [Bin(f"{len(counts) - MOST_FOLDERS} others", rest)] if rest else []
            found.append((str(table), [*counts[:MOST_FOLDERS], *more]))
    return found
