"""The hooks of a run, as its config and command line want them."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from imagier.config.check import Config
from imagier.data.loading.loader import Loader
from imagier.recipe import Batch
from imagier.run import build_training, sinks, status
from imagier.run.resume_plan import ResumePlan
from imagier.run.saving import before_checkpoint_of, checkpoints, first_save, saver_of
from imagier.train.clock import Stopwatch
from imagier.train.hooks import evaluation, report
from imagier.train.hooks.checkpoints import Stateful
from imagier.train.hooks.console import Console
from imagier.train.hooks.health import Health
from imagier.train.hooks.images import Images
from imagier.train.hooks.log import Log, Sink
from imagier.train.hooks.profile import Profile
from imagier.train.hooks.tolerant import TolerantHook
from imagier.train.hooks.watchdog import Watchdog
from imagier.train.runtime import Runtime
from imagier.train.saver import Saver
from imagier.train.trainer import Hook, Trainer
from imagier.train.view import View

logger = logging.getLogger(__name__)

FEW = 8
"""Samples that are looked at again and again: the rows of images, and those by which a run's health is read."""

HEALTH_EVERY = 100
"""Iterations between two readings of a run's health, or more, if it is logged less often."""


class Hooks:
    """All hooks of a run in the order in which they watch, and what they share."""

    def __init__(
        self,
        config: Config,
        args: argparse.Namespace,
        start: ResumePlan,
        trainer: Trainer,
        training: Loader,
        held_out: Loader | None,
        total_steps: int,
        stopwatch: Stopwatch | None,
        kept: Mapping[str, Any],
    ) -> None:
        """kept: the extras of the checkpoint that the run goes on from."""
        runtime = trainer.runtime
        console = Console(total_steps=total_steps, from_step=trainer.step, is_main=runtime.is_main)
        self.sinks: list[Sink] = [console]
        self.saver: Saver | None = None
        wandb_id: str | None = kept.get("wandb_id")
        if runtime.is_main:
            self.saver = saver_of(config.run, start, runtime)
            more, wandb_id = sinks.of_first_rank(config, args, start, trainer.step, wandb_id)
            self.sinks += more
        self.log = Log(
            self.sinks,
            every=config.run.logging_iter,
            samples_per_step=training.batch_size * training.world,
            log_names=trainer.recipe.log_names,
            stopwatch=stopwatch,
            tallies=partial(_skipped, [training, *([held_out] if held_out is not None else [])]),
        )
        view = View(build_training.calibrated(training, _calibration(config), runtime))
        self.evaluation = self._evaluation(config, view, training, held_out, start.seed)

        extras = partial(_extras, start, wandb_id, view if _calibration(config) else None, trainer)
        few = (held_out or training).some(FEW)
        self.health = self._health(config, view, training, few if held_out else None, start.seed)
        before, saves_early = (
            before_checkpoint_of(trainer, view, held_out),
            first_save(config.run, training) < total_steps,
        )
        self.saves = checkpoints(
            config.run, self.saver, extras, self._stateful(), before_checkpoint=before, prepares=saves_early
        )
        self.go_on_from(kept, trainer)
        shown = TolerantHook(self._images(config, start, view, few), "an image", logger.info)
        self.all: list[Hook] = [self.log, console, self.health, self.saves, shown]
        if self.evaluation is not None:
            self.all.append(self.evaluation)
        if runtime.is_main:
            self.all += self._pages(args, start, runtime)
        self._watchdog = None
        if args.step_timeout is not None:  # the last: what the others do is part of a step
            self._watchdog = Watchdog(start.logdir, args.step_timeout, rank=runtime.rank, status=status.HUNG)
            self.all.append(self._watchdog)

    def go_on_from(self, kept: Mapping[str, Any], trainer: Trainer) -> None:
        """Gives each the state that a checkpoint's extras hold for it, once the trainer has its own."""
        self.saves.load_state_dict(kept, trainer.runtime.device)
        self._remember_scores(trainer.step)

    def _stateful(self) -> dict[str, Stateful]:
        """Whose state belongs to the run, by its name in a checkpoint."""
        stateful: dict[str, Stateful] = {"log": self.log, "health": self.health}
        if self.evaluation is not None:
            stateful["evaluation"] = self.evaluation
        return stateful

    def _pages(self, args: argparse.Namespace, start: ResumePlan, runtime: Runtime) -> list[Hook]:
        """What is written about a run, by the first rank."""
        command = shlex.join(sys.argv)
        page = report.Report(start.logdir, command, start.seed, self.evaluation, self.health.verdicts.standing)
        pages: list[Hook] = [TolerantHook(page, report.NAME, logger.info)]
        if args.profile:
            pages.insert(0, TolerantHook(Profile(start.logdir, runtime.device), "the profile", logger.info))
        return pages

    def _health(self, config: Config, view: View, training: Loader, held_out: Batch | None, seed: int) -> Health:
        """Reads now and then how the run is."""
        return Health(
            partial(training.some, FEW),
            held_out,
            training.once,
            view,
            self.log.write,
            logger.info,
            every=max(HEALTH_EVERY, config.run.logging_iter),
            seed=seed,
        )

    def _images(self, config: Config, start: ResumePlan, view: View, few: Batch) -> Images:
        """Shows some samples again and again."""
        run = config.run
        return Images(
            start.logdir,
            few,
            view,
            self.sinks,
            every=[run.image_save_iter, run.metrics_iter or run.snapshot_save_iter],
            display_every=run.image_display_iter,
            seed=start.seed,
        )

    def _evaluation(
        self, config: Config, view: View, training: Loader, held_out: Loader | None, seed: int
    ) -> evaluation.Evaluation | None:
        """Scores on held-out images, where there are any."""
        run = config.run
        if held_out is None:
            return None
        return evaluation.Evaluation(
            held_out.once,
            training.once,
            view,
            self.log.write,
            every=run.metrics_iter or run.snapshot_save_iter,
            every_epochs=run.metrics_epoch or run.snapshot_save_epoch,
            seed=seed,
            scored=self._scored,
        )

    def _scored(self, step: int, scores: evaluation.Scores) -> None:
        if self.saver is not None:
            self.saver.note(step, scores)

    def _remember_scores(self, step: int) -> None:
        """Those of checkpoints, up to a step: they were measured after these were written."""
        if self.saver is not None and self.evaluation is not None:
            for entry in self.saver.files.entries:
                if entry.step <= step:
                    self.evaluation.remember(entry.step, entry.metrics)

    @property
    def unsaved(self) -> str | None:
        """Why the last state of the run is not on the disk; None if it is."""
        return self.saver.unsaved if self.saver is not None else None

    def finish_saving(self) -> None:
        """Waits until every checkpoint so far is on the disk, or is known not to be."""
        if self.saver is not None:
            self.saver.close()

    def close(self) -> None:
        """Finishes the files, the last checkpoint first, and ends the watch."""
        self.finish_saving()
        if self._watchdog is not None:
            self._watchdog.close()
        for sink in self.sinks:
            sink.close()


def _extras(start: ResumePlan, wandb_id: str | None, calibrated: View | None, trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint keeps beside the state of the trainer and of the hooks."""
    statistics = build_training.measured_batch_norm(calibrated, trainer) if calibrated is not None else {}
    return {**start.kept(), "wandb_id": wandb_id, "batch_norm": statistics}


def _calibration(config: Config) -> int:
    """The batches on which batch norms of the average are measured."""
    average = config.trainer.model_average_config
    return average.num_batch_norm_estimation_iterations if average.enabled else 0


def _skipped(loaders: Sequence[Loader]) -> dict[str, int]:
    """How often samples were skipped, if broken ones are."""
    skipping = [loader.skipped for loader in loaders if loader.on_error != "stop"]
    return {"data/skipped": sum(skipping)} if skipping else {}
