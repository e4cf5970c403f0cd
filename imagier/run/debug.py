"""`imagier train --debug`: everything that a run does, in a few slow and careful steps."""

from __future__ import annotations

import argparse
import copy
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from imagier.config.check import Config
from imagier.config.schema import BIG, Cudnn
from imagier.errors import UserError
from imagier.run.training import run_once
from imagier.train import runtime as runtimes
from imagier.train.compare import first_difference
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

STEPS = 4
HELD_OUT_BATCHES = 2


def debug(config: Config, args: argparse.Namespace, runtime: Runtime) -> int:
    """Trains a few steps with anomaly detection, then again from the middle; 1 if the two disagree.

    Everything goes to <logdir>/debug, which is made anew each time.
    """
    if args.dry_run:
        raise UserError("--debug trains and --dry-run does not: choose one")
    folder = Path(args.logdir or "logs") / "debug"
    if runtime.is_main:
        shutil.rmtree(folder, ignore_errors=True)
    runtime.barrier()
    config = _short(config)
    args = copy.copy(args)
    args.wandb, args.max_time, args.resume = False, None, 0

    with runtimes.deterministic(), torch.autograd.set_detect_anomaly(True):
        args.logdir = folder / "whole"
        whole = run_once(config, args, runtime, held_out_batches=HELD_OUT_BATCHES)
        middle = next(args.logdir.glob(f"epoch_*_iteration_{STEPS // 2:09d}_checkpoint.pt"))
        args.logdir, args.checkpoint, args.resume = folder / "continued", middle, 1
        continued = run_once(config, args, runtime, held_out_batches=HELD_OUT_BATCHES)
    states = [{name: player.state_dict() for name, player in run.players.items()} for run in (whole, continued)]
    different = first_difference(*states)
    verdict = f"differs in {different}" if different else "is the same run, bit for bit"
    logger.info(f"resume check: continuing from iteration {STEPS // 2} {verdict}")
    return 1 if different else 0


def _short(config: Config) -> Config:
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
