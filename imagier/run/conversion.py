"""`imagier convert`: a checkpoint of the reference, loaded into networks and optimizers of ours, and saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from imagier.errors import UserError
from imagier.run import build_training
from imagier.run.experiment import ConfigSource, read_experiment
from imagier.run.options import TRAIN_SEED, RunOptions
from imagier.run.resume_plan import ResumePlan
from imagier.train import checkpoint
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer


@dataclass(frozen=True)
class Conversion:
    """Where the run stands whose checkpoint was converted."""

    epoch: int
    step: int


def convert(old: Path, new: Path, config: ConfigSource, *, overrides: Sequence[str] = ()) -> Conversion:
    """Writes `new`; the run can be continued from it if the old file held the state of optimizers.

    UserError if it does not fit the config, or needs no conversion.
    """
    experiment = read_experiment(config, RunOptions(), overrides)
    experiment.log_notes()
    found = FoundCheckpoint(old, checkpoint.load(old))
    if "net_G" not in found.state:
        raise UserError("is a checkpoint of ours already", where=old, code="no-reference-checkpoint")
    runtime = Runtime(torch.device("cpu"))
    recipe = build_training.build_untrained_recipe(experiment.config, runtime)
    players = build_training.build_players(experiment.config, recipe, runtime)
    trainer = Trainer(recipe, players, runtime, seed=TRAIN_SEED)
    plan = ResumePlan(new.parent, TRAIN_SEED, old, is_resume=True)
    plan.restore(trainer, found, strict=experiment.config.trainer.strict_resume)
    checkpoint.write(new, trainer, extras={})
    return Conversion(trainer.position.epoch, trainer.step)
