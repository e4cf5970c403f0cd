"""report.html: a run on one page, which needs no other file."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path

import cv2
import jinja2
import numpy as np

from imagier.metrics.metric import Score
from imagier.train.disk import write_atomic
from imagier.train.hooks import files, log_summary
from imagier.train.hooks.baselines import ClassErrors
from imagier.train.hooks.console import format_duration
from imagier.train.hooks.evaluation import format_table, judge
from imagier.train.hooks.images import FOLDER, Grid, encode, read_grid
from imagier.train.trainer import Outcome, Progress, Trainer

NAME = "report.html"
COMMANDS = "commands.txt"
"""A line for every start of the run: when, and the command."""

PERIOD_S = 15.0
"""Seconds between two versions of the page while the run continues."""
MOST_OF_TIME = 0.01
"""If writing the page takes more than this share of the time, it is written less often."""
RETRY_S = 600.0
"""Seconds until the next attempt, if the page cannot be written: each of them logs a line."""

IMAGES = 6
NEWEST_PX, OLDER_PX = 1280, 640
"""The largest height of an image on the page."""


@dataclass(frozen=True)
class About:
    """What the page says of a run, beside what is in its log."""

    command: str
    """How this process was started."""
    total_steps: int
    from_step: int = 0
    """Iterations done before this process."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """For people, by name."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """What can be done with the run: the command of each purpose."""
    config: str = ""
    """All of it, as YAML."""
    scores: Sequence[Score] = ()
    """Those that the run logs."""


class Report:
    """Writes <logdir>/report.html after the first step, then every PERIOD_S seconds, and at the end."""

    def __init__(
        self,
        logdir: Path,
        about: About,
        *,
        verdicts: Callable[[], Sequence[str]] = tuple,
        by_class: Mapping[str, ClassErrors] | None = None,
        unsaved: Callable[[], str | None] = lambda: None,
    ) -> None:
        """verdicts: returns what is wrong with the run, in words. by_class: that of `Evaluation`. unsaved: returns why
        the last state is not on the disk.
        """
        self.logdir = logdir
        self.about = about
        self.verdicts = verdicts
        self.by_class = {} if by_class is None else by_class
        self.unsaved = unsaved
        self.is_current = False
        """Whether the page on the disk shows the end of the run."""
        self._due = 0.0
        self._starts: list[str] | None = None
        self._embedded: dict[tuple[Path, int], str] = {}
        self._template = _load_template()

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        if not progress.is_last and time.monotonic() >= self._due:
            self.write(trainer, "running")

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        is_done = trainer.outcome is Outcome.DONE
        self.write(trainer, "finished" if is_done else "stopped", self.unsaved() or "")
        self.is_current = True

    def write(self, trainer: Trainer, state: str, why: str = "") -> None:
        """Writes the page. state: running, stopped, finished or failed. why: more about that, for people."""
        start = time.monotonic()
        self._due = start + RETRY_S
        text = self._render(trainer, state, why)
        with write_atomic(self.logdir / NAME) as file:
            file.write(text.encode())
        end = time.monotonic()
        self._due = end + max(PERIOD_S, (end - start) / MOST_OF_TIME)

    def _render(self, trainer: Trainer, state: str, why: str) -> str:
        about, records = self.about, files.read(self.logdir)
        if self._starts is None:
            self._starts = _note_start(self.logdir / COMMANDS, about.command, is_new=about.from_step == 0)
        names = [score.name for score in about.scores]
        scores, step = log_summary.find_scores(records, names)
        table = format_table(log_summary.rename(scores))
        return self._template.render(
            title=self.logdir.resolve().name,
            state=state,
            why=why,
            iterations=f"{trainer.step:,} of {about.total_steps:,}",
            now=_format_time(),
            facts=self._collect_facts(trainer, records),
            about=about,
            starts=[line.split("  ", 1) for line in self._starts],
            scores=table,
            scored_step=step,
            judgments=judge(scores, about.scores),
            meanings=list(dict.fromkeys(score.meaning for score in about.scores if score.name in table[0])),
            classes=log_summary.tabulate_classes(self.by_class),
            verdicts=self.verdicts(),
            charts=log_summary.draw_charts(records, names),
            images=self._embed_images(),
        )

    def _collect_facts(self, trainer: Trainer, records: Sequence[Mapping[str, float]]) -> dict[str, str]:
        assert self._starts is not None
        first = [self._starts[0].partition("  ")[0], *(_format_time(record["time"]) for record in records[:1])]
        return {
            "started": min(first),
            "last update": _format_time(),
            "time in training": format_duration(log_summary.sum_seconds(records)),
            "iterations": f"{trainer.step:,} of {self.about.total_steps:,}",
            "epochs": f"{trainer.position.epoch:,}",
            **self.about.facts,
            "device": trainer.runtime.describe(),
            "peak memory": f"{trainer.runtime.peak_memory_bytes() / 2**30:.2f} GiB",
        }

    def _embed_images(self) -> list[tuple[Grid, str]]:
        """Some of the saved images, spread over the run, the newest first: what is in each, and its data URI."""
        folder = self.logdir / FOLDER
        paths = sorted(folder.glob("epoch_*_iteration_*.jpg"), key=lambda path: path.name[-13:], reverse=True)
        count = min(IMAGES, len(paths))
        chosen = [read_grid(paths[round(i * (len(paths) - 1) / max(count - 1, 1))]) for i in range(count)]
        current = [read_grid(path) for path in folder.glob("current.jpg")]
        chosen = [grid for grid in current if not chosen or grid.step > chosen[0].step] + chosen
        keys = [(grid.path, OLDER_PX if i else NEWEST_PX) for i, grid in enumerate(chosen)]
        # current.jpg is written again and again; the others stay as they are.
        kept = {key: uri for key, uri in self._embedded.items() if key[0].name.startswith("epoch_")}
        self._embedded = {key: kept[key] if key in kept else _encode_data_uri(*key) for key in keys}
        return [(grid, uri) for grid, uri in zip(chosen, self._embedded.values()) if uri]


def _note_start(path: Path, command: str, *, is_new: bool) -> list[str]:
    """Adds a line for this start to those of the run, "time  command"; returns all of them."""
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() and not is_new else []
    lines = [*before, f"{_format_time()}  {' '.join(command.split())}"]
    with write_atomic(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    return lines


def _format_time(seconds: float | None = None) -> str:
    """A time, or now, as "2026-01-31 23:59"."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _encode_data_uri(path: Path, most_px: int) -> str:
    """The image of a file, at most so high; empty if it cannot be read."""
    data = path.read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        return ""
    scale = most_px / image.shape[0]
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        data = encode(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), ".jpg")
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _load_template() -> jinja2.Template:
    source = (package_files("imagier.train.hooks") / "report.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
