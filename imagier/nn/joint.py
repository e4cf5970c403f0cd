"""Several inputs through one network: in one pass where that gives what passes in turn give, which takes longer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Call = tuple[nn.Module, tuple[Tensor, ...]]
"""A network, and the arguments that it is given."""

Run = Callable[..., list[Any]]
"""`run_jointly` or `run_in_turn`."""


def run_in_turn(calls: Sequence[Call], **shared: Any) -> list[Any]:
    """The output of each call, one after the other. shared: further arguments of all calls."""
    return [network(*inputs, **shared) for network, inputs in calls]


def run_jointly(calls: Sequence[Call], **shared: Any) -> list[Any]:
    """As `run_in_turn`, but all calls of a network in one pass if their inputs have the same sizes and no sample's
    output depends on another's.

    Spectral norms then make one step of their power iteration for all of them. Outputs are tensors, or lists, tuples
    and dictionaries of such, or None.
    """
    found: dict[int, Any] = {}
    for network in dict.fromkeys(network for network, _ in calls):
        own = {index: inputs for index, (called, inputs) in enumerate(calls) if called is network}
        found |= dict(zip(own, _run(network, list(own.values()), shared)))
    return [found[index] for index in range(len(calls))]


def _run(network: nn.Module, inputs: Sequence[tuple[Tensor, ...]], shared: Mapping[str, Any]) -> list[Any]:
    first, *others = inputs
    are_alike = all(x.shape[1:] == y.shape[1:] for each in others for x, y in zip(first, each, strict=True))
    if not others or not are_alike or _mixes_samples(network):
        return [network(*each, **shared) for each in inputs]
    together = network(*(torch.cat(tensors) for tensors in zip(*inputs, strict=True)), **shared)
    return _split(together, [len(each[0]) for each in inputs])


def _mixes_samples(network: nn.Module) -> bool:
    """Whether there is a batch norm that uses the statistics of its batch."""
    return any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None)
        for module in network.modules()
    )


def _split(output: Any, counts: Sequence[int]) -> list[Any]:
    """The parts of a nested output, of so many samples each."""
    if isinstance(output, Tensor):
        return list(output.split(list(counts)))
    if output is None:
        return [None for _ in counts]
    if isinstance(output, dict):
        return [dict(zip(output, values)) for values in _split(tuple(output.values()), counts)]
    assert isinstance(output, (list, tuple)), f"a network that sees several images at once returned {type(output)}"
    parts = [_split(each, counts) for each in output]
    return [list(values) if isinstance(output, list) else values for values in zip(*parts)] or [[] for _ in counts]
