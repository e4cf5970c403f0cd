"""Writes the page of a run, and what that shows, while the run continues."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from imagier.train.hooks import log_summary, page, report_file
from imagier.train.hooks.baselines import ClassErrors
from imagier.train.hooks.report_file import About, Standing
from imagier.train.trainer import Outcome, Progress, Trainer

PERIOD_S = 15.0
"""Seconds between two versions of the page while the run continues."""
MOST_OF_TIME = 0.01
"""If writing the page takes more than this share of the time, it is written less often."""
RETRY_S = 600.0
"""Seconds until the next attempt, if the page cannot be written: each of them logs a line."""


class Report:
    """Writes report.json and report.html after the first step, then every PERIOD_S seconds, and at the end."""

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
        self._is_noted = False
        self._page = page.Page(logdir)
        before = report_file.read(logdir) if about.from_step else None
        self._classes = before.classes if before is not None else ()

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        if not progress.is_last and time.monotonic() >= self._due:
            self.write(trainer, "running")

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        is_done = trainer.outcome is Outcome.DONE
        self.write(trainer, "finished" if is_done else "stopped", self.unsaved() or "")
        self.is_current = True

    def write(self, trainer: Trainer, state: str, why: str = "") -> None:
        """Writes both files. state: running, stopped, finished or failed. why: more about that, for people."""
        start = time.monotonic()
        self._due = start + RETRY_S
        if not self._is_noted:
            page.note_start(self.logdir, self.about.command, is_new=self.about.from_step == 0)
            self._is_noted = True
        report_file.write(self.logdir, self._describe(trainer, state, why))
        self._page.write()
        end = time.monotonic()
        self._due = end + max(PERIOD_S, (end - start) / MOST_OF_TIME)

    def _describe(self, trainer: Trainer, state: str, why: str) -> Standing:
        self._classes = log_summary.tabulate_classes(self.by_class) or self._classes
        return Standing(
            self.about,
            state,
            why,
            step=trainer.step,
            epoch=trainer.position.epoch,
            time=time.time(),
            device=trainer.runtime.describe(),
            peak_memory_bytes=trainer.runtime.peak_memory_bytes(),
            verdicts=self.verdicts(),
            classes=self._classes,
        )
