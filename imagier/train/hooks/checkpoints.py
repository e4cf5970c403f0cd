"""Saves a run: on its periods, when somebody asks for it, and always at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagier.train.checkpoint import save
from imagier.train.trainer import Outcome, Progress, Trainer


class Checkpoints:
    """Writes checkpoints into the log folder."""

    def __init__(
        self,
        logdir: Path,
        extras: Callable[[], dict[str, Any]],
        *,
        every: int,
        start: int,
        every_epochs: int,
        start_epoch: int,
        survey: Callable[[Trainer], None] | None = None,
    ) -> None:
        """extras: what other hooks want kept, asked for at every save. survey: called before each, if there is time."""
        self.logdir = logdir
        self.extras = extras
        self.survey = survey
        self.every, self.start = every, start
        self.every_epochs, self.start_epoch = every_epochs, start_epoch

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        step, epoch = progress.step, progress.epoch
        by_step = step % self.every == 0 and step >= self.start
        by_epoch = progress.epoch_ended and epoch % self.every_epochs == 0 and epoch >= self.start_epoch
        if by_step or by_epoch or progress.outcome is not Outcome.GO_ON:
            if self.survey is not None and progress.outcome is not Outcome.INTERRUPTED:
                self.survey(trainer)
            extras = self.extras()
            if trainer.runtime.is_main:
                save(self.logdir, trainer, extras)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        """The last step saved already."""
