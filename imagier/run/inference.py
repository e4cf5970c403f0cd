"""What `imagier infer` does: one image per input, made by the averaged generator."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import logging
import os
from pathlib import Path

import torch

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.recipe import Recipe
from imagier.run import build_data, build_training
from imagier.run.reference_checkpoint import translated
from imagier.train import checkpoint
from imagier.train import runtime as runtimes
from imagier.train.checkpoint_files import latest
from imagier.train.hooks.images import to_uint8, write_image
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

JPEG_QUALITY = 99


def infer(config: Config, args: argparse.Namespace, runtime: Runtime) -> int:
    """Writes <output_dir>/<sequence>/<name>.jpg for every sample; returns the exit status.

    Of test_data, or without that section of data: of its `test`, or without that of its `val`.
    """
    count = write_all(config, args, runtime)
    logger.info(f"{args.output_dir}: {count} images")
    return 0


@torch.no_grad()
def write_all(config: Config, args: argparse.Namespace, runtime: Runtime) -> int:
    """Writes all images, each name once; returns how many, over all ranks."""
    trainer = config.trainer
    runtime.precision, _ = runtimes.choose_precision(trainer.precision, trainer.amp_config.enabled, runtime.device)
    section = "data" if config.run.test_data is None else "test_data"
    data = config.run.test_data or config.run.data
    split = data.test or data.val
    if split is None:
        raise UserError(f"nothing to infer from: the config has neither {section}.test nor {section}.val")
    if split is data.val:
        data = build_data.for_validation(data)
    data = dataclasses.replace(data, val_data_loader_not_distributed=False)  # each rank writes its share
    if args.num_workers is not None:
        data = build_data.with_workers(data, args.num_workers)
    recipe = trained(config, args, runtime)
    rng = runtime.generator(args.seed)
    runtime.seed(args.seed)  # for layers that draw noise of their own
    options = config.run.inference_args
    if "seed" in inspect.signature(recipe.infer).parameters:
        options = {"seed": args.seed, **options}
    written: set[str] = set()
    for stored in build_data.held_out_loader(config, runtime, data, split, args.seed).once():
        batch = recipe.prepare(stored)
        with runtime.autocast():
            images = recipe.infer(batch, rng, **options)
        for name, image in zip(recipe.infer_names(batch, **options), images):
            if name not in written:  # else it is there: the shorter list of an unpaired set begins again
                seen = to_uint8(image.clamp(-1, 1).expand(3, -1, -1))
                write_image(args.output_dir / f"{name}.jpg", seen, JPEG_QUALITY)
            written.add(name)
    return runtime.all_reduce_sum(len(written))


def trained(config: Config, args: argparse.Namespace, runtime: Runtime) -> Recipe:
    """The recipe with the averaged weights of a checkpoint, or its plain ones if it holds no average."""
    path = _checkpoint(config, args)
    recipe = build_training.untrained(config, runtime)
    network = recipe.networks["gen"]
    average = build_training.average(config, network, runtime)
    averages = {"gen": average.network} if average is not None else {}
    state, notes = translated(checkpoint.load(path), {"gen": network}, averages, {}, path)
    state, misfits = checkpoint.fitted(state, {"gen": network}, averages, path, strict=config.trainer.strict_resume)
    for line in [*notes, *misfits]:
        logger.info(line)
    with checkpoint.fitting(path):
        saved = state["players"]["gen"]
        if average is not None and "average" in saved:
            average.load_state_dict(saved["average"])
            calibrated = state["extras"].get("batch_norm", {})
            average.network.load_state_dict({**average.network.state_dict(), **calibrated})
            recipe = recipe.with_networks(gen=average.network)
        else:
            network.load_state_dict(saved["network"])
    recipe.networks["gen"].eval()
    return recipe


def _checkpoint(config: Config, args: argparse.Namespace) -> Path:
    if args.checkpoint is not None:
        return args.checkpoint
    found = latest(args.logdir) if args.logdir is not None else None
    if found is not None:
        return found
    weight = config.run.pretrained_weight
    if not weight:
        raise UserError("--checkpoint is missing: name the weights, or the --logdir of the run that trained them")
    # Where the reference kept what it downloaded, so that its users need not fetch it again.
    stem = str(args.config).removesuffix(".yaml") if args.config is not None else "run"
    path = Path(os.environ.get("TORCH_HOME", ".")) / "checkpoints" / f"{stem}-{weight}.pt"
    if not path.is_file():
        raise UserError(
            f"{weight} is the id of a file on Google Drive, which is not fetched from here",
            where="pretrained_weight",
            advice=f"download it to {path}, or name a file with --checkpoint",
        )
    return path
