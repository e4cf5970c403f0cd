"""Images from a trained generator: one per input, made with the averaged weights."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imagier.config import schema
from imagier.config.check import Config
from imagier.errors import UserError
from imagier.nn.resize import to_rgb
from imagier.recipe import Recipe
from imagier.run import build_data, build_training
from imagier.run.experiment import ConfigSource, Experiment, read_experiment
from imagier.run.options import STYLE_SEED, RunOptions
from imagier.run.process import open_runtime
from imagier.run.reference_checkpoint import translate_reference
from imagier.run.workers import warn_of_many
from imagier.train import checkpoint
from imagier.train import runtime as runtimes
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.checkpoint_files import find_latest
from imagier.train.hooks.images import to_uint8, write_image
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

JPEG_QUALITY = 99


def generate(
    config_or_logdir: ConfigSource,
    output_dir: str | Path,
    options: RunOptions | None = None,
    *,
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Writes <output_dir>/<sequence>/<name>.jpg for every sample of the test set; returns the paths, in order.

    The test set is that of `test_data`, or if the config has no such section `data.test`, or else `data.val`. The
    weights are those of `options.checkpoint`, or else the latest of the log folder. If a launcher has started several
    processes, each writes its share and returns its paths.

    config_or_logdir: a config as of `train`, or the folder of a run. UserError for a mistake in any argument.
    """
    experiment, options = read_experiment_of_run(config_or_logdir, options, overrides)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        return write_images(experiment, Path(output_dir), options, runtime)


def read_experiment_of_run(
    config_or_logdir: ConfigSource | None, options: RunOptions | None, overrides: Sequence[str]
) -> tuple[Experiment, RunOptions]:
    """The experiment of a config, or of the run in a log folder, and the options with that folder in them."""
    options = options or RunOptions()
    if isinstance(config_or_logdir, str | Path) and Path(config_or_logdir).is_dir():
        options = dataclasses.replace(options, logdir=config_or_logdir)
        config_or_logdir = None
    return read_experiment(config_or_logdir, options, overrides), options


@torch.no_grad()
def write_images(experiment: Experiment, output_dir: Path, options: RunOptions, runtime: Runtime) -> list[Path]:
    """Writes this rank's share of all images, each name once; returns their paths."""
    config, seed = experiment.config, STYLE_SEED if options.seed is None else options.seed
    data, split = find_test_set(config)
    if options.num_workers is not None:  # `test_data` has a number of its own
        data = dataclasses.replace(data, num_workers=options.num_workers)
    warn_of_many(data.num_workers, runtime)
    recipe = load_recipe(config, load_weights(experiment, options), runtime)
    written: dict[str, Path] = {}
    for name, image in _make_images(recipe, config, data, split, seed, runtime):
        if name not in written:  # else it is there: the shorter list of an unpaired set begins again
            written[name] = output_dir / f"{name}.jpg"
            write_image(written[name], to_uint8(to_rgb(image[None])[0]), JPEG_QUALITY)
    total = runtime.all_reduce_sum(len(written))
    logger.info(f"{output_dir}: {total} images")
    return list(written.values())


def find_test_set(config: Config) -> tuple[schema.Data, schema.Split]:
    """The data section and the split of it that inference reads. UserError if the config has none."""
    section = "data" if config.run.test_data is None else "test_data"
    data = config.run.test_data or config.run.data
    split = data.test or data.val
    if split is None:
        what = f"the config has neither {section}.test nor {section}.val"
        raise UserError(f"nothing to infer from: {what}", code="no-test-set")
    if split is data.val:
        data = build_data.select_validation_data(data)
    return dataclasses.replace(data, val_data_loader_not_distributed=False), split  # each rank writes its share


def _make_images(
    recipe: Recipe, config: Config, data: schema.Data, split: schema.Split, seed: int, runtime: Runtime
) -> Iterator[tuple[str, Tensor]]:
    """The name of every image of this rank, "sequence/name", and the image, C x H x W, in [-1, 1] or beyond."""
    rng = runtime.generator(seed)
    runtime.seed(seed)  # for layers that draw noise of their own
    arguments = collect_arguments(recipe, config, seed)
    for stored in build_data.build_held_out_loader(config, runtime, data, split, seed).once():
        batch = recipe.prepare(stored)
        with runtime.autocast():
            images = recipe.infer(batch, rng, **arguments)
        yield from zip(recipe.infer_names(batch, **arguments), images)


def collect_arguments(recipe: Recipe, config: Config, seed: int) -> dict[str, Any]:
    """The keyword arguments of the recipe's `infer`: those of the config, and `seed` if the method takes one."""
    arguments = config.run.inference_args
    return {"seed": seed, **arguments} if "seed" in inspect.signature(recipe.infer).parameters else dict(arguments)


def load_recipe(config: Config, weights: FoundCheckpoint, runtime: Runtime) -> Recipe:
    """The recipe in eval mode with the averaged weights of a checkpoint, or its plain ones if it holds no average.

    Also sets the precision of the runtime. Nothing refers to the checkpoint afterwards. UserError if it does not fit
    the config.
    """
    trainer = config.trainer
    # The reference's amp_config is about training: its images are made in float32.
    runtime.precision, _ = runtimes.choose_precision(trainer.precision, False, runtime.device)
    recipe = build_training.build_untrained_recipe(config, runtime)
    name = recipe.generator_name
    network = recipe.networks[name]
    average = build_training.build_average(config, name, network, runtime)
    averages = {name: average.network} if average is not None else {}
    path = weights.path
    state, notes = translate_reference(weights.state, {name: network}, averages, {}, path)
    state, misfits = checkpoint.fit_state(state, {name: network}, averages, path, strict=trainer.strict_resume)
    for line in [*notes, *misfits]:
        logger.info(line)
    with checkpoint.translate_load_errors(path):
        saved = state["players"][name]
        if average is not None and "average" in saved:
            average.load_state_dict(saved["average"])
            calibrated = state["extras"].get("batch_norm", {})
            average.network.load_state_dict({**average.network.state_dict(), **calibrated})
            recipe = recipe.with_networks(**averages)
        else:
            network.load_state_dict(saved["network"])
    recipe.networks[name].eval()
    return recipe


def load_weights(experiment: Experiment, options: RunOptions) -> FoundCheckpoint:
    """The checkpoint that the options name, or the latest of the log folder, or the reference's file for the config."""
    path = _find_weights(experiment, options)
    return FoundCheckpoint(path, checkpoint.load(path))


def _find_weights(experiment: Experiment, options: RunOptions) -> Path:
    if options.checkpoint is not None:
        return Path(options.checkpoint)
    found = find_latest(Path(options.logdir)) if options.logdir is not None else None
    if found is not None:
        return found
    weight = experiment.config.run.pretrained_weight
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
