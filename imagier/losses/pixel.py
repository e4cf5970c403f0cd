"""Distances of pictures and of named tensors, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_mse(x: Tensor, y: Tensor, weights: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Sum of weights * (x - y)^2, or its mean over all elements, whatever they weigh; shapes broadcast -> scalar."""
    errors = weights.float() * (x.float() - y.float()).square()
    return errors.mean() if reduction == "mean" else errors.sum()


def masked_l1(x: Tensor, y: Tensor, mask: Tensor, *, over_valid: bool = False) -> Tensor:
    """Mean absolute difference where `mask` is 1; tensors of one shape, to which the mask broadcasts -> scalar.

    The mean is over all elements, or `over_valid` over those in the mask.
    """
    mask = mask.float().expand_as(x)
    distance = F.l1_loss(x.float() * mask, y.float() * mask)
    return distance * mask.numel() / (mask.sum() + 1e-6) if over_valid else distance


def named_distance(
    fake: Mapping[str, Tensor], real: Mapping[str, Tensor], criterion: Literal["l1", "mse"] = "l1"
) -> Tensor:
    """Sum over names of the mean absolute or squared difference -> scalar. No gradient goes to the real ones."""
    distance = {"l1": F.l1_loss, "mse": F.mse_loss}[criterion]
    return torch.stack([distance(x.float(), real[name].detach().float()) for name, x in fake.items()]).sum()
