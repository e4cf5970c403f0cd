"""The networks as hooks use them: in eval mode, without gradients, with average weights if there are any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from imagier.recipe import Recipe
from imagier.train.trainer import Trainer

Calibration = Callable[[Recipe], AbstractContextManager[None]]
"""A context within which the batch norms of a recipe with average weights have statistics measured for them."""


class View:
    """Gives hooks the recipe in eval mode."""

    def __init__(self, calibrate: Calibration) -> None:
        self.calibrate = calibrate

    @contextmanager
    def use_live_weights(self, trainer: Trainer) -> Iterator[Recipe]:
        """The recipe with the weights in training."""
        networks = list(trainer.recipe.networks.values())
        for network in networks:
            network.eval()
        try:
            with torch.no_grad(), trainer.runtime.autocast():
                yield trainer.recipe
        finally:
            for network in networks:
                network.train()

    @contextmanager
    def use_average_weights(self, trainer: Trainer) -> Iterator[Recipe]:
        """The recipe with the average weights of the players that keep an average, and the live ones of the others."""
        with self.use_live_weights(trainer) as recipe:
            averaged = recipe.with_networks(**collect_averages(trainer))
            with self.calibrate(averaged):
                yield averaged


def collect_averages(trainer: Trainer) -> dict[str, torch.nn.Module]:
    """The network with average weights of every player that keeps an average."""
    return {name: player.average.network for name, player in trainer.players.items() if player.average is not None}
