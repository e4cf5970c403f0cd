"""What the contract tests of every method and those of the reference's methods have in common."""

from __future__ import annotations

from pathlib import Path

import torch
from contract.experiment import batch_of, config_of, train, trainer_of
from torch import Tensor

from imagier.recipe import Batch, Recipe, StepContext
from imagier.train.trainer import Trainer


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def prepared(trainer: Trainer, data: Path, name: str) -> Batch:
    """A batch as all methods but `step` want it."""
    return trainer.recipe.prepare(batch_of(config_of(name, data)))


def warm(name: str, data: Path, seed: int = 0) -> Trainer:
    """A trainer that has learned a little, so that spectral norms are near their values, in eval mode."""
    config = config_of(name, data)
    trainer = trainer_of(config, seed=seed)
    train(trainer, config, 3)
    for network in trainer.recipe.networks.values():
        network.eval()
    return trainer


def states(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor of networks, averages and optimizers, by name."""
    found = {}
    for name, player in trainer.players.items():
        state = player.state_dict()
        found |= {f"{name}.{key}": x for key, x in state["network"].items()}
        found |= {f"{name}.average.{key}": x for key, x in state.get("average", {}).get("network", {}).items()}
        for index, moments in state["optimizer"]["state"].items():
            found |= {f"{name}.optimizer.{index}.{key}": torch.as_tensor(x) for key, x in moments.items()}
    return {name: tensor.clone() for name, tensor in found.items()}


def check_step(recipe: Recipe, batch: Batch) -> None:
    """A step yields known players and finite losses, all of which have weights, and leaves the batch as it was."""
    before = {key: tensor.clone() for key, tensor in batch.tensors.items()}
    seen, named = [], set()
    for player, losses in recipe.step(batch, StepContext(0, 0, rng())):
        seen.append(player)
        for loss, value in losses.items():
            assert value.shape == (), loss
            assert value.isfinite(), loss
            whole, _, part = loss.partition("/")
            assert whole in recipe.loss_weight
            named |= {whole, f"{whole}_{part}"}
        assert recipe.total(losses).requires_grad
    assert set(seen) == set(recipe.players)
    wanted = {loss for loss, weight in recipe.loss_weight.items() if weight}
    assert wanted <= named, "a loss has a weight, but was not computed"
    assert all(torch.equal(batch[key], tensor) for key, tensor in before.items()), "the batch was changed in place"
