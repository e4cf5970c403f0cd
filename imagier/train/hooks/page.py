"""report.html: a run on one page, which needs no other file. It shows what is in the run's folder."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from imagier.train import manifest
from imagier.train.disk import write_atomic
from imagier.train.hooks import evaluations, files, log_summary, report_file
from imagier.train.hooks.console import format_duration
from imagier.train.hooks.evaluation import MEASURED_LATER, format_table, judge
from imagier.train.hooks.evaluations import Results
from imagier.train.hooks.images import FOLDER, Grid, encode, read_grid
from imagier.train.hooks.report_file import Standing

if TYPE_CHECKING:
    import jinja2

NAME = "report.html"
COMMANDS = "commands.txt"
"""A line for every start of the run: when, and the command."""

IMAGES = 6
NEWEST_PX, OLDER_PX = 1280, 640
"""The largest height of an image on the page."""


class Page:
    """Writes <logdir>/report.html, again and again: images that have not changed are encoded once."""

    def __init__(self, logdir: Path) -> None:
        self.logdir = logdir
        self._embedded: dict[tuple[Path, int, int], str] = {}
        """Data URIs by file, time of its last change, and largest height."""

    @cached_property
    def _template(self) -> jinja2.Template:
        return _load_template()

    def write(self) -> None:
        """Writes the page; OSError if that fails.

        A training and an evaluation may write it at the same time. Each writes what it has to say before the page, and
        looks for what is new after it. So whichever page is the last one shows all.
        """
        shown = None
        while shown != (now := self._list_versions()):
            shown = now
            text = self.render()
            with write_atomic(self.logdir / NAME) as file:
                file.write(text.encode())

    def render(self) -> str:
        """The page, as HTML."""
        standing = report_file.read(self.logdir)
        records = [record for record in files.read(self.logdir) if MEASURED_LATER not in record]  # cards have these
        described = standing.about.scores if standing is not None else ()
        names = [score.name for score in described] or log_summary.find_score_names(records)
        scores, scored_step = log_summary.find_scores(records, names)
        results, unreadable = evaluations.read_results(
            self.logdir, {score.name: score.higher_is_better for score in described}
        )
        table = format_table(log_summary.rename(scores))
        shown = {*table[0], *(name for result in results for name in result.names)}
        starts = _read_starts(self.logdir)
        step = standing.step if standing is not None else self._find_last_step(records, results)
        total = f" of {standing.about.total_steps:,}" if standing is not None else ""
        before, self._embedded = self._embedded, {}
        return self._template.render(
            title=self.logdir.resolve().name,
            standing=standing,
            iterations=f"{step:,}{total}",
            now=_format_time(standing.time) if standing is not None else "",
            facts=_collect_facts(standing, records, starts, f"{step:,}{total}"),
            starts=starts,
            scores=table,
            scored_step=scored_step,
            judgments=judge(scores, described),
            meanings=list(dict.fromkeys(score.meaning for score in described if score.name in shown)),
            results=results,
            nearest={
                each.path: uri
                for result in results
                for each in result.newest
                if (uri := self._embed(each.nearest_path, NEWEST_PX, before))
            },
            unreadable=unreadable,
            charts=log_summary.draw_charts(records, names),
            images=self._embed_images(before),
        )

    def _list_versions(self) -> list[tuple[str, int, int]]:
        """What tells whether another process has written something to show."""
        paths = [self.logdir / report_file.NAME, *sorted((self.logdir / evaluations.FOLDER).glob("[!.]*"))]
        found = [(path.name, path.stat()) for path in paths if path.is_file()]
        return [(name, about.st_mtime_ns, about.st_ino) for name, about in found]

    def _find_last_step(self, records: Sequence[Mapping[str, float]], results: Sequence[Results]) -> int:
        """The last iteration that a folder without report.json knows of."""
        steps = [entry.step for entry in manifest.read_or_scan(self.logdir)]
        steps += [int(record["step"]) for record in records[-1:]]
        return max([*steps, *(result.step for result in results)], default=0)

    def _embed_images(self, before: Mapping[tuple[Path, int, int], str]) -> list[tuple[Grid, str]]:
        """Some of the saved images, spread over the run, the newest first, after its animation, if there is one.

        What is in each, and its data URI.
        """
        folder = self.logdir / FOLDER
        paths = sorted(folder.glob("epoch_*_iteration_*.jpg"), key=lambda path: path.name[-13:], reverse=True)
        count = min(IMAGES, len(paths))
        chosen = [read_grid(paths[round(i * (len(paths) - 1) / max(count - 1, 1))]) for i in range(count)]
        current = [read_grid(path) for path in folder.glob("current.jpg")]
        chosen = [grid for grid in current if not chosen or grid.step > chosen[0].step] + chosen
        clip = folder / chosen[0].path.with_suffix(".gif").name if chosen else None
        chosen = [*([read_grid(clip)] if clip is not None and clip.is_file() else []), *chosen]
        uris = [
            self._embed(grid.path, NEWEST_PX if grid.step == chosen[0].step else OLDER_PX, before) for grid in chosen
        ]
        return [(grid, uri) for grid, uri in zip(chosen, uris) if uri]

    def _embed(self, path: Path, most_px: int, before: Mapping[tuple[Path, int, int], str]) -> str:
        """The data URI of an image, at most so high; empty if there is none. before: those of the last page."""
        if not path.is_file():
            return ""
        key = path, path.stat().st_mtime_ns, most_px
        self._embedded[key] = before[key] if key in before else _encode_data_uri(path, most_px)
        return self._embedded[key]


def render_page(logdir: Path) -> str:
    """The page of a run, as HTML, from what is in its folder, of which any file may be missing."""
    return Page(logdir).render()


def write_page(logdir: Path) -> None:
    """Writes the page of a run, also while its training does so; OSError if that fails."""
    Page(logdir).write()


def note_start(logdir: Path, command: str, *, is_new: bool) -> None:
    """Adds a line for this start to those of the run, "time  command"."""
    path = logdir / COMMANDS
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() and not is_new else []
    lines = [*before, f"{_format_time()}  {' '.join(command.split())}"]
    with write_atomic(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _read_starts(logdir: Path) -> list[tuple[str, str]]:
    """Time and command of every start of the run."""
    path = logdir / COMMANDS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return [(time, command) for time, _, command in (line.partition("  ") for line in lines)]


def _collect_facts(
    standing: Standing | None,
    records: Sequence[Mapping[str, float]],
    starts: Sequence[tuple[str, str]],
    iterations: str,
) -> dict[str, str]:
    times = [time for time, _ in starts[:1]] + [
        _format_time(record["time"]) for record in records[:1] if "time" in record
    ]
    facts = {"started": min(times, default="")}
    if standing is not None:
        facts["last update"] = _format_time(standing.time)
    facts["time in training"] = format_duration(log_summary.sum_seconds(records)) if records else ""
    facts["iterations"] = iterations
    if standing is not None:
        facts |= {
            "epochs": f"{standing.epoch:,}",
            **standing.about.facts,
            "device": standing.device,
            "peak memory": f"{standing.peak_memory_bytes / 2**30:.2f} GiB",
        }
    return {name: fact for name, fact in facts.items() if fact}


def _format_time(seconds: float | None = None) -> str:
    """A time, or now, as "2026-01-31 23:59"."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _encode_data_uri(path: Path, most_px: int) -> str:
    """The image of a file, at most so high; empty if it cannot be read. An animation stays as it is."""
    data = path.read_bytes()
    if path.suffix == ".gif":
        return f"data:image/gif;base64,{base64.b64encode(data).decode()}"
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        return ""
    scale = most_px / image.shape[0]
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        data = encode(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), ".jpg")
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _load_template() -> jinja2.Template:
    import jinja2

    source = (package_files("imagier.train.hooks") / "report.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
