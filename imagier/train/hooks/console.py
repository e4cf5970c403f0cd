"""What a user sees while a run continues: a line in the log for every record, and a bar on a terminal."""

from __future__ import annotations

import logging
import time
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
    """Logs a line for every record; shows a bar with the time that is left, where it is wanted and there is a terminal.

    While the bar is shown, whatever is written to `sys.stdout` appears above it.
    """

    def __init__(self, *, total_steps: int, from_step: int, has_bar: bool) -> None:
        self.total_steps = total_steps
        self.start_step = from_step
        self.start = self.drawn = time.perf_counter()
        self.bar: Bar | None = None
        terminal = RichConsole(highlight=False, soft_wrap=True)
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
        logger.info(format_record(record, self.total_steps, self._seconds_left(record.step)))

    def image(self, path: Path, step: int) -> None:
        """Images are in the log folder."""

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def _seconds_left(self, step: int) -> float:
        done = step - self.start_step
        return (time.perf_counter() - self.start) / max(done, 1) * (self.total_steps - step)


def format_record(record: Record, total_steps: int, seconds_left: float) -> str:
    """A record in one line: progress, speed, time left, losses."""
    scalars = dict(record.scalars)
    head = f"epoch {record.epoch}  iter {record.step:,}/{total_steps:,}"
    if "time/epoch" in scalars:
        return f"{head}  epoch took {format_duration(scalars['time/epoch'])}"
    parts = []
    if "time/iteration" in scalars:
        speed = scalars.pop("time/iteration")
        per_second = f"{1 / speed:.3g} it/s" if speed < 1 else f"{speed:.3g} s/it"
        parts += [per_second, f"{scalars.pop('speed/samples_per_second'):.3g} img/s"]
        parts += [f"{scalars.pop('memory/peak_bytes') / 2**30:.2f} GiB", f"{format_duration(seconds_left)} left"]
    losses: dict[str, list[str]] = {}
    for tag, value in scalars.items():
        room, _, name = tag.partition("/")
        if room not in ("optim", "health") and "/" not in name:
            losses.setdefault(room.removesuffix("_update"), []).append(f"{name or room} {value:.4g}")
    parts += [f"{room}: {' '.join(values)}" for room, values in losses.items()]
    return "  ".join([head, *parts])


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
