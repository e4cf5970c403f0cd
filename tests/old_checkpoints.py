"""Checkpoints as the reference wrote them, made of recorded weights or of networks of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from golden import golden
from parity import NETWORKS, names_of
from parity_clips import take_label_as_given
from safetensors.torch import load_file
from torch import Tensor, nn

from imagier.config.check import Config, check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import load
from imagier.recipe import Recipe
from imagier.run import build_training
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

CPU = Runtime(torch.device("cpu"))


def config_of(path: Path, *overrides: str) -> Config:
    """The checked config of a file."""
    document = load(path, list(overrides))
    take_label_as_given(document)
    translate_legacy(document)
    return check(document)


def trainer_of(config: Config, seed: int = 0) -> Trainer:
    """A trainer with fresh networks, and no networks of losses."""
    recipe = build_training.build_untrained_recipe(config, CPU, seed)
    return Trainer(recipe, build_training.build_players(config, recipe, CPU), CPU, seed=seed)


def recorded_state(case: str, player: str) -> dict[str, Tensor]:
    """The weights of a recorded case, by the reference's names."""
    prefix = f"net_{NETWORKS[player]}."
    tensors = load_file(golden(case, "state.safetensors"))
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def parameters_of(network: nn.Module, entries: Iterable[str]) -> list[str]:
    """Those of the reference's names that are learned, as our network knows it."""
    names = names_of(network)
    learned = {names[name] for name, _ in network.named_parameters()}
    return [name for name in entries if name in learned]


def folded(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as in an average without spectral norms."""
    found = {}
    for name, tensor in entries.items():
        stem = name.removesuffix("_orig")
        if f"{stem}_orig" in entries:
            u, v = entries[f"{stem}_u"], entries[f"{stem}_v"]
            found[stem] = tensor / torch.dot(u, tensor.flatten(1) @ v)
        elif not (name.endswith(("_u", "_v")) and f"{name[:-2]}_orig" in entries):
            found[name] = tensor
    return found


def wrapped(live: Mapping[str, Tensor], average: Mapping[str, Tensor] | None = None, num_updates: int = 7) -> dict:
    """A network's entries with the prefixes of the reference."""
    if average is None:
        return {f"module.{name}": tensor for name, tensor in live.items()}
    return {
        "module.num_updates_tracked": torch.tensor(num_updates),
        **{f"module.module.{name}": tensor for name, tensor in live.items()},
        **{f"module.averaged_model.{name}": tensor for name, tensor in average.items()},
    }


def perturbed(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Other values of the same kind."""
    return {name: tensor * 0.9 + 1 if tensor.is_floating_point() else tensor for name, tensor in entries.items()}


def moved(tensors: Mapping[str, Tensor], optimizer: type, steps: int = 2, **options: Any) -> tuple[dict, dict]:
    """Parameters after some steps of an optimizer of torch's with random gradients, and its state."""
    params = {name: nn.Parameter(tensor.clone()) for name, tensor in tensors.items()}
    tested = optimizer(list(params.values()), **options)
    rng = torch.Generator().manual_seed(3)
    for _ in range(steps):
        for param in params.values():
            param.grad = torch.randn(param.shape, generator=rng)
        tested.step()
    return {name: param.detach() for name, param in params.items()}, tested.state_dict()


def exported(player: Player) -> tuple[dict, dict]:
    """A player's network and its optimizer's state as the reference would have written them."""
    names = names_of(player.network)
    live = {names[name]: tensor.clone() for name, tensor in player.network.state_dict().items()}
    average = None
    num_updates = 0
    if player.average is not None:
        saved = player.average.state_dict()
        names_of_average = names_of(player.average.network)
        average = {names_of_average[name]: tensor.clone() for name, tensor in saved["network"].items()}
        num_updates = saved["num_updates"]
    live = dict(reversed(live.items()))  # another order than ours
    order = parameters_of(player.network, live)
    ours = [names[name] for name, _ in player.network.named_parameters()]
    state = player.optimizer.state_dict()
    moments = {}
    for index, kept in state["state"].items():  # torch's Adam has a running mean also without momentum
        moments[order.index(ours[index])] = {"exp_avg": torch.zeros_like(kept["exp_avg_sq"]), **kept}
    group = {**state["param_groups"][0], "params": list(range(len(order)))}
    return wrapped(live, average, num_updates), {"state": moments, "param_groups": [group]}


def old_checkpoint(recipe: Recipe, players: Mapping[str, Player], *, epoch: int, iteration: int) -> dict[str, Any]:
    """Everything that the reference saved, of players of ours."""
    state: dict[str, Any] = {"current_epoch": epoch, "current_iteration": iteration}
    for player in recipe.networks:
        letter = NETWORKS[player]
        state[f"net_{letter}"], state[f"opt_{letter}"] = exported(players[player])
        state[f"sch_{letter}"] = {"last_epoch": epoch, "_step_count": epoch + 1, "base_lrs": [1e-3]}
    return state
