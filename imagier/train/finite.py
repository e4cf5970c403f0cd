"""Whether tensors are finite: all of them at once, and by name only if they are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


@torch.no_grad()
def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number in some tensors of any shapes, types and devices is finite; waits once for the device."""
    found = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    return bool(get_total_norm(found, torch.inf).isfinite())  # NaN if there is one; unlike a sum, it cannot overflow


def find_nonfinite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a number that is not finite; None if there is none."""
    if is_finite(tensors.values()):
        return None
    return next(name for name, tensor in tensors.items() if not is_finite([tensor]))


def name_moments(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer keeps of each parameter of a network, by a name for people: "exp_avg of conv.weight"."""
    return {
        f"{key} of {name}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }
