"""Saves a run: at its periods, on request, and always at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from imagier.train.manifest import choose_epoch_in_name
from imagier.train.runtime import Runtime
from imagier.train.saver import PATIENCE_S, Saver
from imagier.train.trainer import Outcome, Progress, Trainer

logger = logging.getLogger(__name__)


class Stateful(Protocol):
    """A hook whose state belongs to the run, and is kept in checkpoints."""

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """Tensors, numbers, text, and mappings and lists of these. Called on all ranks; the first rank's is kept."""
        ...

    def load_state_dict(self, state: dict[str, Any], runtime: Runtime) -> None:
        """Continues from what `state_dict` returned, on all ranks."""
        ...


class Checkpoints:
    """Decides when a checkpoint is written. The first rank writes it, in the background except for the last one."""

    def __init__(
        self,
        saver: Saver | None,
        extras: Callable[[], dict[str, Any]],
        stateful: Mapping[str, Stateful],
        *,
        every: int,
        start: int,
        every_epochs: int,
        start_epoch: int,
        max_iter: int | None = None,
        before_checkpoint: Callable[[Trainer], None] | None = None,
        prepares: bool = False,
    ) -> None:
        """saver: None on all ranks but the first. extras, stateful: what else is saved; called on all ranks.

        max_iter: that of the run, on which a name depends. before_checkpoint: called before each save, unless the run
        was interrupted. prepares: reserve the memory for copies at the first step.
        """
        self.saver = saver
        self.extras = extras
        self.stateful = stateful
        self.before_checkpoint = before_checkpoint
        self.every, self.start = every, start
        self.every_epochs, self.start_epoch = every_epochs, start_epoch
        self.max_iter = max_iter
        self._prepares = prepares
        self._is_late = False
        """Whether a save is to be made up for, which was due after a bad iteration."""

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        step, epoch = progress.step, progress.epoch
        if self.saver is not None:
            self.saver.report()
            if self._prepares and not progress.is_last:
                self.saver.prepare(trainer)  # before the first step, the optimizers have no moments
        self._prepares = False
        by_step = step % self.every == 0 and step >= self.start
        by_epoch = progress.epoch_ended and epoch % self.every_epochs == 0 and epoch >= self.start_epoch
        if by_step or by_epoch or self._is_late or progress.outcome is not Outcome.GO_ON:
            with trainer.clock("save"):  # all that training waits for, such as the batch norms of an average
                self._is_late = not self._may_save(trainer, progress)
                if not self._is_late:
                    self._prepare_and_save(trainer, progress)

    def _prepare_and_save(self, trainer: Trainer, progress: Progress) -> None:
        if self.before_checkpoint is not None and progress.outcome is not Outcome.INTERRUPTED:
            self.before_checkpoint(trainer)
        states = {name: stateful.state_dict(trainer.runtime) for name, stateful in self.stateful.items()}
        self._save(trainer, progress, {**self.extras(), **states})

    def _may_save(self, trainer: Trainer, progress: Progress) -> bool:
        """False if a scheduled save has to wait for a good iteration. NonFinite rather than save bad numbers."""
        guard = trainer.guard
        if guard is None:
            return True
        guard.settle()  # what a bad iteration left in buffers must not be saved
        if guard.is_in_streak and progress.outcome is Outcome.GO_ON:
            if self.saver is not None and not self._is_late:
                logger.info(f"iteration {progress.step:,} is not saved, but the next one whose numbers are finite")
            return False
        guard.check_state(progress.step)
        return True

    def _save(self, trainer: Trainer, progress: Progress, extras: dict[str, Any]) -> None:
        if self.saver is None:
            return
        epoch = choose_epoch_in_name(progress.position, progress.step, self.max_iter)
        should_prune = trainer.guard is None or not trainer.guard.is_in_streak
        if progress.is_last:
            self.saver.save_now(trainer, extras, epoch=epoch, should_prune=should_prune)
        else:
            # A checkpoint that was asked for is never left out.
            patience_s = None if progress.outcome is Outcome.SAVE else PATIENCE_S
            self.saver.save(trainer, extras, patience_s, epoch=epoch, should_prune=should_prune)

    def load_state_dict(self, extras: Mapping[str, Any], runtime: Runtime) -> None:
        """Gives every stateful hook what the extras of a checkpoint hold for it; those without a state start afresh."""
        for name, stateful in self.stateful.items():
            if name in extras:
                stateful.load_state_dict(extras[name], runtime)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        """The last step has saved already."""
