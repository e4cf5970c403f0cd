"""An iteration for a dry run: whether the networks take what the data give, tried on a few samples."""

from __future__ import annotations

import logging
from typing import Any

import torch

from imagier.config.check import Config
from imagier.data.loading.loader import Loader
from imagier.errors import RunError, UserError
from imagier.recipe import Batch, Recipe, StepContext
from imagier.run import build_training
from imagier.run.process import is_out_of_memory
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

MOST_WORK = 2**42
"""Parameters times pixels: some seconds on a few cores."""

TOO_LARGE = "the networks are too large to try an iteration in a dry run"

ENOUGH = 2
"""Samples of an update: more fail no more than these."""


def rehearse(config: Config, weightless: Recipe, training: Loader, held_out: Loader | None, **known: Any) -> None:
    """Computes all losses of an iteration, and an image of a held-out sample, on the CPU. UserError if it cannot.

    weightless: the recipe, by which the work is measured: if it is too much, nothing is tried. known: as of
    `build_recipe`.
    """
    split = config.run.data.train
    assert split is not None
    parts = training.batch_size // split.batch_size
    count = parts * min(split.batch_size, ENOUGH)
    batch = _to_cpu(training.some(count))
    if len(batch) != count:
        return  # of images of different sizes
    parameters = sum(p.numel() for network in weightless.networks.values() for p in network.parameters())
    pixels = max((t.shape[0] * t.shape[-2] * t.shape[-1] for t in batch.tensors.values() if t.dim() > 2), default=0)
    if parameters * pixels > MOST_WORK:
        logger.info(TOO_LARGE)
        return
    cpu = Runtime(torch.device("cpu"))
    recipe = build_training.build_untrained_recipe(config, cpu, **known)
    build_training.load_losses(recipe)
    shape = " x ".join(map(str, next(iter(batch.tensors.values())).shape[-2:]))
    what = f"an iteration on images of {shape} px fails"
    try:
        _compute_losses(recipe, batch, cpu, config.trainer.accumulate)
        what = "an image of a held-out sample cannot be made"
        if held_out is not None:
            _make_image(recipe, _to_cpu(held_out.some(1)), cpu)
    except (UserError, RunError):
        raise
    except (RuntimeError, ValueError, MemoryError) as error:
        if is_out_of_memory(error):
            logger.info(TOO_LARGE)
            return
        reason = str(error).partition("\n")[0]
        where = " and ".join(recipe.networks)
        advice = "do the sizes of networks and images fit each other?"
        raise UserError(f"{what}: {reason}", where=where, advice=advice, code="iteration-fails") from error


def _compute_losses(recipe: Recipe, batch: Batch, runtime: Runtime, accumulate: int) -> None:
    recipe.train()
    runtime.seed(0)
    part = batch.split(accumulate)[0]
    for _, losses in recipe.step(part, StepContext(0, 0, runtime.generator(0), accumulate)):
        recipe.total(losses)


@torch.no_grad()
def _make_image(recipe: Recipe, batch: Batch, runtime: Runtime) -> None:
    for network in recipe.networks.values():
        network.eval()
    recipe.sample(recipe.prepare(batch), runtime.generator(0))


def _to_cpu(batch: Batch) -> Batch:
    return Batch({name: tensor.cpu() for name, tensor in batch.tensors.items()}, batch.keys)
