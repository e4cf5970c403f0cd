"""The trained generator of a run: which checkpoint is taken, and the recipe with its weights, ready for images."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.recipe import Recipe
from imagier.run import build_training
from imagier.run.experiment import Experiment
from imagier.run.options import RunOptions
from imagier.run.reference_checkpoint import translate_reference
from imagier.train import checkpoint
from imagier.train import runtime as runtimes
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.checkpoint_files import LATEST, find_latest
from imagier.train.finite import find_nonfinite
from imagier.train.fit_state import fit_state
from imagier.train.manifest import read_or_scan
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

Weights = Literal["average", "regular"]
"""Which weights of a generator."""


def load_recipe(config: Config, weights: FoundCheckpoint, runtime: Runtime) -> Recipe:
    """The recipe in eval mode with the averaged weights of a checkpoint, or its plain ones if it holds no average.

    See `load_weighted_recipe`.
    """
    return load_weighted_recipe(config, weights, runtime)[0]


def load_weighted_recipe(
    config: Config, weights: FoundCheckpoint, runtime: Runtime, *, use_average: bool = True
) -> tuple[Recipe, Weights]:
    """The recipe in eval mode with the averaged weights of a checkpoint, if wanted and there, else the plain ones.

    Returns which they are, too. Also sets the precision of the runtime, and TF32. Nothing refers to the checkpoint
    afterwards. UserError if it does not fit the config.
    """
    trainer = config.trainer  # whose amp_config is about training: the reference makes images in float32
    runtime.precision, _ = runtimes.choose_precision(trainer.precision, False, runtime.device)
    runtimes.set_tf32(trainer.tf32, runtime.device)
    recipe = build_training.build_untrained_recipe(config, runtime)
    name = recipe.generator_name
    network = recipe.networks[name]
    average = build_training.build_average(config, name, network, runtime)
    averages = {name: average.network} if average is not None else {}
    path = weights.path
    state, notes = translate_reference(weights.state, {name: network}, averages, {}, path)
    state, misfits = fit_state(state, {name: network}, averages, path, strict=trainer.strict_resume)
    for line in [*notes, *misfits]:
        logger.info(line)
    with checkpoint.translate_load_errors(path):
        saved = state["players"][name]
        has_average = use_average and average is not None and "average" in saved
        if has_average:
            assert average is not None
            average.load_state_dict(saved["average"])
            calibrated = state["extras"].get("batch_norm", {})
            if broken := find_nonfinite(calibrated):
                what = f"its batch norm statistics hold numbers that are not finite ({broken})"
                raise UserError(what, where=path, advice="take an earlier checkpoint", code="not-finite")
            average.network.load_state_dict({**average.network.state_dict(), **calibrated})
            recipe = recipe.with_networks(**averages)
        else:
            network.load_state_dict(saved["network"])
    recipe.networks[name].eval()
    return recipe, "average" if has_average else "regular"


def load_weights(experiment: Experiment, options: RunOptions) -> FoundCheckpoint:
    """The checkpoint that the options name, or the latest of the log folder, or the reference's file for the config."""
    path = _find_weights(experiment, options)
    return FoundCheckpoint(path, checkpoint.load(path))


def _find_weights(experiment: Experiment, options: RunOptions) -> Path:
    if options.checkpoint is not None:
        return Path(options.checkpoint)
    if options.logdir is not None:
        logdir = Path(options.logdir)
        if (found := find_latest(logdir)) is not None:
            return found
        if written := read_or_scan(logdir):
            name = written[-1].name
            logger.info(f"{logdir / LATEST}: missing; the last checkpoint that was written is {name}")
            return logdir / name
    weight = experiment.config.run.pretrained_weight
    if not weight and options.logdir is not None:
        advice = "name the weights as `checkpoint`"
        raise UserError(
            "holds no checkpoint", where=f"logdir {options.logdir}", advice=advice, code="missing-checkpoint"
        )
    if not weight:
        raise UserError(
            "missing",
            where="checkpoint",
            advice="name the weights, or the `logdir` of the run that trained them",
            code="missing-checkpoint",
        )
    # Where the reference kept what it downloaded, so that its users need not fetch it again.
    stem = str(experiment.path).removesuffix(".yaml") if experiment.path is not None else "run"
    path = Path(os.environ.get("TORCH_HOME", ".")) / "checkpoints" / f"{stem}-{weight}.pt"
    if not path.is_file():
        raise UserError(
            f"{weight} is the id of a file on Google Drive, which is not fetched from here",
            where="pretrained_weight",
            advice=f"download it to {path}, or name a file as `checkpoint`",
            code="missing-checkpoint",
        )
    return path
