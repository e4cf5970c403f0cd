"""What a user sees while a run continues: a line in the log for every record, and a bar on a terminal."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console as RichConsole
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from imagier.train.hooks.log import Record
from imagier.train.trainer import Progress, Trainer

logger = logging.getLogger(__name__)

LONG_EPOCH_SECONDS = 60
REDRAW_SECONDS = 0.2


class Console:
    """Logs a line for every record, as wide as the terminal, or whole where there is none.

    Shows a bar with the time that is left, where it is wanted and there is a terminal. While it is shown, whatever is
    written to `sys.stdout` appears above it.
    """

    def __init__(self, *, total_steps: int, from_step: int, has_bar: bool) -> None:
        self.total_steps = total_steps
        self.start_step = from_step
        self.start = self.drawn = time.perf_counter()
        self.bar: Bar | None = None
        self.terminal = terminal = RichConsole(highlight=False, soft_wrap=True)
        if has_bar and terminal.is_terminal:
            columns = (TextColumn("[bold]{task.completed:,}"), BarColumn(None), TextColumn("of {task.total:,}"))
            self.bar = Bar(*columns, TimeRemainingColumn(), console=terminal, transient=True, auto_refresh=False)
            self.task = self.bar.add_task("", total=total_steps, completed=from_step)
            self.bar.start()

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        now = time.perf_counter()
        if self.bar is not None and now - self.drawn > REDRAW_SECONDS:
            self.drawn = now
            self.bar.update(self.task, completed=progress.step, refresh=True)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def scalars(self, record: Record) -> None:
        if record.scalars.get("time/epoch", LONG_EPOCH_SECONDS) < LONG_EPOCH_SECONDS:
            return  # of a small data set, epochs would be more lines than the losses
        if all(tag.startswith("health/") for tag in record.scalars):
            return  # if they mean something, a verdict says so
        width = self.terminal.width if self.terminal.is_terminal else None
        logger.info(format_record(record, self.total_steps, self._seconds_left(record.step), width))

    def image(self, path: Path, step: int) -> None:
        """Images are in the log folder."""

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def _seconds_left(self, step: int) -> float:
        done = step - self.start_step
        return (time.perf_counter() - self.start) / max(done, 1) * (self.total_steps - step)


def format_record(record: Record, total_steps: int, seconds_left: float, width: int | None = None) -> str:
    """A record in one line: progress, speed, time left, losses, and the rest.

    width: columns; of what does not fit, the least important is left out, which "…" shows. None: as many as it takes.
    """
    scalars = dict(record.scalars)
    words = [("", f"iter {record.step:,}/{total_steps:,}")]
    rest = [("", f"epoch {record.epoch}")]
    if "time/epoch" in scalars:
        words.append(("", f"epoch {record.epoch} took {format_duration(scalars.pop('time/epoch'))}"))
        rest = []
    if "time/iteration" in scalars:
        speed = scalars.pop("time/iteration")
        words.append(("", f"{1 / speed:.3g} it/s" if speed < 1 else f"{speed:.3g} s/it"))
        words.append(("", f"ETA {format_duration(seconds_left)}"))
        rest.append(("", f"{scalars.pop('speed/samples_per_second'):.3g} img/s"))
        rest.append(("", f"{scalars.pop('memory/peak_bytes') / 2**30:.2f} GiB"))
    values: dict[str, list[str]] = {}
    for tag, value in scalars.items():
        room, _, name = tag.partition("/")
        if room not in ("optim", "health") and "/" not in name:
            of_room = values.setdefault(room.removesuffix("_update"), [])
            of_room.insert(0 if name == "total" else len(of_room), f"{name} {value:.4g}".lstrip())
    # Of each player the total, before any other loss.
    firsts = [(room, texts[0]) for room, texts in values.items()]
    others = [(room, text) for room, texts in values.items() for text in texts[1:]]
    return _fit([*words, *firsts, *others, *rest], width)


def _fit(words: Sequence[tuple[str, str]], width: int | None) -> str:
    """As many words as fit, each with its room, the most important first; those of a room stand together."""
    line = _join(words)
    kept = len(words)
    while width is not None and len(line) > width and kept > 1:
        kept -= 1
        line = f"{_join(words[:kept])} …"
    return line


def _join(words: Sequence[tuple[str, str]]) -> str:
    parts: dict[str, list[str]] = {}
    for number, (room, text) in enumerate(words):
        parts.setdefault(room or str(number), [f"{room}:"] if room else []).append(text)
    return " · ".join(" ".join(texts) for texts in parts.values())


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
