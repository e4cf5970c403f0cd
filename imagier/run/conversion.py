"""What `imagier convert` does: a reference's checkpoint loaded into networks and optimizers of ours, and saved."""

from __future__ import annotations

import argparse
import logging

import torch

from imagier.errors import UserError
from imagier.run import build_training
from imagier.run.options import DEFAULT_SEED
from imagier.run.resume_plan import ResumePlan
from imagier.run.training import read_config
from imagier.train import checkpoint
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

logger = logging.getLogger(__name__)


def convert(args: argparse.Namespace) -> int:
    """Writes `args.new`; the run can be continued from it if the old file held the state of optimizers."""
    config, notes = read_config(args)
    for note in notes:
        logger.info(note)
    state = checkpoint.load(args.old)
    if "net_G" not in state:
        raise UserError("is a checkpoint of ours already", where=args.old)
    runtime = Runtime(torch.device("cpu"))
    recipe = build_training.untrained(config, runtime)
    trainer = Trainer(recipe, build_training.players(config, recipe, runtime), runtime, seed=DEFAULT_SEED)
    start = ResumePlan(args.new.parent, DEFAULT_SEED, args.old, state, continues=True)
    start.restore(trainer, strict=config.trainer.strict_resume)
    checkpoint.write(args.new, trainer, extras={})
    logger.info(f"{args.new}: epoch {trainer.position.epoch}, iteration {trainer.step:,}")
    return 0
