"""Where the first rank of a run sends its records and images, besides the console."""

from __future__ import annotations

import argparse
import logging

from imagier.config.check import Config
from imagier.run.resume_plan import ResumePlan
from imagier.train.hooks import files, tensorboard
from imagier.train.hooks.log import Sink
from imagier.train.hooks.tolerant import TolerantSink
from imagier.train.hooks.wandb import WandB

logger = logging.getLogger(__name__)


def of_first_rank(
    config: Config, args: argparse.Namespace, start: ResumePlan, from_step: int, wandb_id: str | None
) -> tuple[list[Sink], str | None]:
    """The sinks, none of which ends a run when its disk fails; and the W&B run, if there ever was one.

    wandb_id: that of the checkpoint.
    """
    sinks: list[Sink] = [TolerantSink(files.JsonLines(start.logdir, from_step=from_step), files.NAME, logger.info)]
    if tensorboard.is_installed():
        images = config.trainer.image_to_tensorboard
        board = tensorboard.TensorBoard(start.logdir, from_step=from_step, images=images)
        sinks.append(TolerantSink(board, "TensorBoard's log", logger.info))
    if args.wandb:
        wandb = WandB(
            start.logdir,
            project=args.wandb_name,
            run_id=args.wandb_id,
            resuming=start.continues,
            kept_id=wandb_id,
            config={**config.resolved(), "dataset": config.run.data.name, "seed": start.seed},
        )
        wandb_id = wandb.run_id
        sinks.append(TolerantSink(wandb, "W&B's log", logger.info))
    return sinks, wandb_id
