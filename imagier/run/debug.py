"""`imagier train --debug`: everything that a run does, in a few slow and careful steps."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from imagier.config.check import Config
from imagier.config.schema import BIG, Cudnn
from imagier.errors import UserError
from imagier.run.experiment import ConfigSource, Experiment, read_experiment
from imagier.run.options import RunOptions
from imagier.run.process import open_runtime
from imagier.run.session import Session
from imagier.run.training import run_session
from imagier.train.compare import find_first_difference
from imagier.train.determinism import make_deterministic
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

STEPS = 4
HELD_OUT_BATCHES = 2


def debug(config: ConfigSource | None, options: RunOptions, *, overrides: Sequence[str] = ()) -> bool:
    """Trains a few steps with anomaly detection, then again from the middle; whether the two agree, bit for bit.

    Everything goes to <logdir>/debug, which is deleted first. Arguments and errors as of `train`.
    """
    if options.dry_run:
        raise UserError("cannot be combined with `dry_run`", where="debug", advice="choose one", code="contradiction")
    experiment = read_experiment(config, options, overrides)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        return _run_twice(replace(experiment, config=shorten(experiment.config)), options, runtime)


def _run_twice(experiment: Experiment, options: RunOptions, runtime: Runtime) -> bool:
    folder = Path(options.logdir or "logs") / "debug"
    if runtime.is_main:
        shutil.rmtree(folder, ignore_errors=True)
    runtime.barrier()
    options = replace(options, wandb=False, max_time_s=None)

    def run(name: str, checkpoint: Path | str | None, *, resume: bool) -> Session:
        its_options = replace(options, logdir=folder / name, checkpoint=checkpoint, resume=resume)
        return run_session(experiment, its_options, runtime, held_out_batches=HELD_OUT_BATCHES)[0]

    with make_deterministic(), torch.autograd.set_detect_anomaly(True):
        whole = run("whole", options.checkpoint, resume=False)
        middle = next(whole.plan.logdir.glob(f"epoch_*_iteration_{STEPS // 2:09d}_checkpoint.pt"))
        continued = run("continued", middle, resume=True)
    states = [
        {name: player.state_dict() for name, player in session.trainer.players.items()}
        for session in (whole, continued)
    ]
    difference = find_first_difference(*states)
    verdict = f"differs in {difference}" if difference else "gives the same result, bit for bit"
    logger.info(f"resume check: continuing from iteration {STEPS // 2} {verdict}")
    return difference is None


def shorten(config: Config) -> Config:
    """The config of a run of STEPS iterations that does in them what a long run does."""
    run = replace(
        config.run,
        max_iter=STEPS,
        max_epoch=BIG,
        logging_iter=1,
        snapshot_save_iter=STEPS // 2,
        snapshot_save_start_iter=0,
        keep_last=None,
        image_save_iter=STEPS // 2,
        metrics_iter=STEPS // 2,
        data=replace(config.run.data, num_workers=0),
        cudnn=Cudnn(deterministic=True, benchmark=False),
    )
    return replace(config, run=run)
