"""The hooks of a run, as its config and command line want them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable

from imagier.cli import build, status
from imagier.cli.start import Start
from imagier.config.check import Config
from imagier.data.loader import Loader
from imagier.train.clock import Stopwatch
from imagier.train.hooks import evaluation, files, report, tensorboard
from imagier.train.hooks.checkpoints import Checkpoints
from imagier.train.hooks.console import Console
from imagier.train.hooks.log import Log, Sink
from imagier.train.hooks.pictures import Pictures
from imagier.train.hooks.profile import Profile
from imagier.train.hooks.wandb import WandB
from imagier.train.hooks.watchdog import Watchdog
from imagier.train.trainer import Hook, Trainer
from imagier.train.view import View

PICTURE_ROWS = 8


class Hooks:
    """All hooks of a run in the order in which they watch, and what they share."""

    def __init__(
        self,
        config: Config,
        args: argparse.Namespace,
        start: Start,
        trainer: Trainer,
        training: Loader,
        held_out: Loader | None,
        total_steps: int,
        stopwatch: Stopwatch | None,
    ) -> None:
        runtime = trainer.runtime
        console = Console(total_steps=total_steps, from_step=trainer.step, is_main=runtime.is_main)
        self.sinks: list[Sink] = [console]
        if runtime.is_main:
            self.sinks += _files(config, args, start, trainer.step)
        self.log = Log(
            self.sinks,
            every=config.run.logging_iter,
            samples_per_step=training.batch_size * training.world,
            log_names=trainer.recipe.log_names,
            stopwatch=stopwatch,
        )
        average = config.trainer.model_average_config
        calibration = average.num_batch_norm_estimation_iterations if average.enabled else 0
        view = View(build.calibrated(training, calibration, runtime))
        self.evaluation = self._evaluation(config, view, training, held_out, start.seed)
        self.all: list[Hook] = [
            self.log,
            console,
            self._checkpoints(config, start, view if calibration else None, trainer, _survey(trainer, view, held_out)),
            self._pictures(config, start, view, held_out or training),
        ]
        if self.evaluation is not None:
            self.all.append(self.evaluation)
        if runtime.is_main and args.profile:
            self.all.append(Profile(start.logdir, runtime.device))
        if runtime.is_main:
            self.all.append(report.Report(start.logdir, shlex.join(sys.argv), start.seed, self.evaluation))
        self._watchdog = None
        if args.step_timeout is not None:  # the last: what the others do is part of a step
            self._watchdog = Watchdog(start.logdir, args.step_timeout, rank=runtime.rank, status=status.HUNG)
            self.all.append(self._watchdog)

    def _checkpoints(
        self,
        config: Config,
        start: Start,
        view: View | None,
        trainer: Trainer,
        survey: Callable[[Trainer], None] | None,
    ) -> Checkpoints:
        """Saves; with the measured batch norm statistics of the average, where there is one (`view`)."""
        run = config.run
        return Checkpoints(
            start.logdir,
            lambda: {
                "log": self.log.state_dict(trainer.runtime),
                "seed": start.seed,
                "batch_norm": build.measured_batch_norm(view, trainer) if view is not None else {},
            },
            every=run.snapshot_save_iter,
            start=run.snapshot_save_start_iter,
            every_epochs=run.snapshot_save_epoch,
            start_epoch=run.snapshot_save_start_epoch,
            survey=survey,
        )

    def _pictures(self, config: Config, start: Start, view: View, samples: Loader) -> Pictures:
        """Shows some samples again and again."""
        run = config.run
        return Pictures(
            start.logdir,
            samples.some(PICTURE_ROWS),
            view,
            self.sinks,
            every=[run.image_save_iter, run.metrics_iter or run.snapshot_save_iter],
            display_every=run.image_display_iter,
            seed=start.seed,
        )

    def _evaluation(
        self, config: Config, view: View, training: Loader, held_out: Loader | None, seed: int
    ) -> evaluation.Evaluation | None:
        """Scores on held-out pictures, where there are any."""
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
        )

    def close(self) -> None:
        """Finishes the files, and ends the watch."""
        if self._watchdog is not None:
            self._watchdog.close()
        for sink in self.sinks:
            sink.close()


def _survey(trainer: Trainer, view: View, held_out: Loader | None) -> Callable[[Trainer], None] | None:
    """What the recipe stores of the held-out set before a checkpoint, if it does."""
    if held_out is None or not trainer.recipe.surveys:
        return None

    def survey(trainer: Trainer) -> None:
        with view.averaged(trainer) as recipe:
            recipe.survey(held_out.once(), trainer.runtime.gathered)

    return survey


def _files(config: Config, args: argparse.Namespace, start: Start, from_step: int) -> list[Sink]:
    sinks: list[Sink] = [files.JsonLines(start.logdir, from_step=from_step)]
    if tensorboard.is_installed():
        pictures = config.trainer.image_to_tensorboard
        sinks.append(tensorboard.TensorBoard(start.logdir, from_step=from_step, pictures=pictures))
    if args.wandb:
        whole = {**config.resolved(), "dataset": config.run.data.name, "seed": start.seed}
        sinks.append(
            WandB(
                start.logdir,
                project=args.wandb_name,
                run_id=args.wandb_id,
                resuming=start.continues,
                config=whole,
            )
        )
    return sinks
