"""Networks fitted to what inference is given, before images are made of it (`Recipe.tune`)."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imagier.config.check import Config
from imagier.recipe import Batch, Losses, Recipe
from imagier.run import build_training
from imagier.run.reference_checkpoint import translate_reference
from imagier.train import checkpoint
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.clips import name_sequence
from imagier.train.fit_state import fit_state
from imagier.train.player import Player
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)


@torch.enable_grad()
def fine_tune(
    recipe: Recipe,
    config: Config,
    load_weights: Callable[[], FoundCheckpoint],
    batch: Batch,
    seeds: Sequence[int],
    runtime: Runtime,
    arguments: Mapping[str, Any],
) -> Recipe:
    """A copy of a recipe whose generator has learned from a prepared batch; the same recipe if it has nothing to learn.

    The copy begins with the recipe's own generator, averaged or not, and with the other networks of the checkpoint.
    load_weights: called if it learns. seeds: all that is random follows from them. arguments: the config's
    `inference_args`. UserError if the checkpoint holds no other networks, or if those that losses use are missing.
    """
    alone = dataclasses.replace(runtime, rank=0, world=1)  # other ranks have other clips
    if recipe.tune(batch, alone.generator(*seeds), **arguments) is None:
        return recipe
    logger.info(f"{name_sequence(batch)}: the networks are fitted to it")
    tuned = recipe.with_networks(**{name: copy.deepcopy(network) for name, network in recipe.networks.items()})
    for network in tuned.networks.values():
        network.requires_grad_(True)
    _load_others(tuned, config, load_weights())
    for network in build_training.load_losses(tuned):
        network.to(runtime.device)
    players = {
        name: build_training.build_player(config, name, network, alone, has_average=False)
        for name, network in tuned.networks.items()
    }
    alone.seed(*seeds)
    _train(tuned)
    phases = tuned.tune(batch, alone.generator(*seeds), **arguments)
    norms = [_update(players[name], tuned.total(losses)) for name, losses in _in_precision(phases or iter(()), alone)]
    if broken := sum(not norm.isfinite() for norm in norms):
        logger.warning(f"{broken} of {len(norms)} updates are left out, as their gradients were not finite")
    for network in tuned.networks.values():
        network.requires_grad_(False).eval()
    return tuned


def _update(player: Player, loss: Tensor) -> Tensor:
    player.backward(loss)
    return player.update()


def _train(recipe: Recipe) -> None:
    """Training mode, but batch norms keep their statistics: one clip has too few, and ranks would wait for others."""
    recipe.train()
    for network in recipe.networks.values():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _in_precision(phases: Iterator[tuple[str, Losses]], runtime: Runtime) -> Iterator[tuple[str, Losses]]:
    """The phases, each computed in the precision of the run."""
    while True:
        with runtime.autocast():
            phase = next(phases, None)
        if phase is None:
            return
        yield phase


def _load_others(recipe: Recipe, config: Config, weights: FoundCheckpoint) -> None:
    """Gives all networks but the generator the weights of a checkpoint."""
    others = {name: network for name, network in recipe.networks.items() if name != recipe.generator_name}
    state, _ = translate_reference(weights.state, others, {}, {}, weights.path)
    state, misfits = fit_state(state, others, {}, weights.path, strict=config.trainer.strict_resume)
    for line in misfits:
        logger.info(line)
    with checkpoint.translate_load_errors(weights.path):
        for name, network in others.items():
            network.load_state_dict(state["players"][name]["network"])
