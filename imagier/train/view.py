"""The networks as they are looked at: in eval mode, without gradients, averaged if there is an average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from imagier.recipe import Recipe
from imagier.train.trainer import Trainer

Calibrated = Callable[[Recipe], AbstractContextManager[None]]
"""Within this context the batch norms of an averaged recipe have statistics of their own."""


class View:
    """Gives hooks the recipe to look at."""

    def __init__(self, calibrated: Calibrated) -> None:
        self.calibrated = calibrated

    @contextmanager
    def live(self, trainer: Trainer) -> Iterator[Recipe]:
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
    def averaged(self, trainer: Trainer) -> Iterator[Recipe]:
        """The recipe with averaged weights; with those in training for a player that keeps no average."""
        with self.live(trainer) as recipe:
            averaged = recipe.with_networks(**averages(trainer))
            with self.calibrated(averaged):
                yield averaged


def averages(trainer: Trainer) -> dict[str, torch.nn.Module]:
    """The averaged network of every player that keeps one."""
    return {name: player.average.network for name, player in trainer.players.items() if player.average is not None}
