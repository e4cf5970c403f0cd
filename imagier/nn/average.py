"""The running average of a network's weights, which makes better images than the weights themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from imagier.nn.conv import SpectralConv2d, SpectralLinear, SpectralNorm

T = TypeVar("T")


class NotAveraged(nn.Module):
    """Holds what is measured, not learned: an average keeps its own values and never follows its source's."""


class DiffersInAverage(nn.Module):
    """A part of a network that works in another way where its weights are an average."""

    def enter_average(self) -> None:
        """Called once for the copy in an average."""
        raise NotImplementedError


class ModelAverage:
    """An exponential moving average of a network (Polyak & Juditsky 1992; for GANs, Yaz et al. 2019).

    `network` is a copy without gradients. With `remove_sn`, spectral norms are folded into the weights,
    which makes it as fast as a plain network. For the first `start_iteration` updates it equals the source, except for
    what a `NotAveraged` holds. A tensor that has two names moves twice, as in the reference. The source must already be
    on its device.
    """

    def __init__(
        self, source: nn.Module, *, beta: float = 0.9999, start_iteration: int = 1000, remove_sn: bool = True
    ) -> None:
        self.beta = beta
        self.start_iteration = start_iteration
        self.num_updates = 0
        self.network = fold_spectral_norm(source) if remove_sn else copy.deepcopy(source)
        self.network.requires_grad_(False).eval()
        for module in self.network.modules():
            if isinstance(module, DiffersInAverage):
                module.enter_average()
        self._turns = [
            (list(averages.values()), _sources(source, averages, fold=remove_sn))
            for averages in _take_turns(_followers(self.network))
        ]

    def update(self) -> None:
        """Moves the average towards the source, after an update of the source: a <- beta a + (1 - beta) s."""
        self.num_updates += 1
        self._follow(0.0 if self.num_updates <= self.start_iteration else self.beta)

    def restart(self) -> None:
        """Restarts from the weights of the source."""
        self.num_updates = 0
        self._follow(0.0)

    def state_dict(self) -> dict:
        """The state for a checkpoint."""
        return {"network": self.network.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict) -> None:
        """Loads what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.num_updates = state["num_updates"]

    @torch.no_grad()
    def _follow(self, beta: float) -> None:
        for averages, followed in self._turns:
            sources = [weight if norm is None else weight / norm.current(weight) for weight, norm in followed]
            if beta == 0:
                torch._foreach_copy_(averages, sources)
            else:
                torch._foreach_lerp_(averages, sources, 1 - beta)


def fold_spectral_norm(network: nn.Module) -> nn.Module:
    """A copy of a network with spectral norms folded into the weights of plain layers."""
    copied = copy.deepcopy(network)
    folded: dict[nn.Module, nn.Module] = {}
    for module in list(copied.modules()):
        for name, child in list(module._modules.items()):  # a layer under several names, too
            if isinstance(child, SpectralConv2d | SpectralLinear):
                if child not in folded:
                    folded[child] = child.fold()
                setattr(module, name, folded[child])
    return copied


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, batches: Iterable[T], forward: Callable[[T], object]) -> None:
    """Replaces the running statistics of batch norms by their mean over `batches`, with equal weights.

    An averaged network has seen no data: its stored statistics are a blend of those of past weights. The network must
    be in eval mode and stays so, except for its batch norms: power iterations do not move. What a `NotAveraged` holds
    stays as it is.
    """
    kept = {part for module in network.modules() if isinstance(module, NotAveraged) for part in module.modules()}
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m not in kept]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for a cumulative mean
    for batch in batches:
        forward(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        norm.eval()


def _followers(averaged: nn.Module) -> dict[str, Tensor]:
    """The tensors that follow their source, by name."""
    kept = tuple(f"{name}." for name, module in averaged.named_modules() if isinstance(module, NotAveraged))
    state = averaged.state_dict(keep_vars=True)
    return {name: t for name, t in state.items() if t.is_floating_point() and not name.startswith(kept)}


def _take_turns(named: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Tensors by name, those that have several names once in each of the parts."""
    turns: list[dict[str, Tensor]] = []
    seen: dict[int, int] = {}
    for name, tensor in named.items():
        turn = seen[id(tensor)] = seen.get(id(tensor), -1) + 1
        turns += [{}] if turn == len(turns) else []
        turns[turn][name] = tensor
    return turns


def _sources(source: nn.Module, averages: Iterable[str], fold: bool) -> list[tuple[Tensor, SpectralNorm | None]]:
    """What each average follows: a tensor, and the spectral norm that it is to be divided by."""
    norms = {}
    if fold:
        for name, module in source.named_modules(remove_duplicate=False):
            if isinstance(module, SpectralConv2d | SpectralLinear):
                norms[f"{name}.weight" if name else "weight"] = module.spectral
    tensors = source.state_dict(keep_vars=True)
    return [(tensors[name], norms.get(name)) for name in averages]
