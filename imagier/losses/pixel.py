"""Distances of images or features, element by element."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference, in float32 whatever the precision of the run; two of one shape -> scalar."""
    return F.l1_loss(x.float(), y.float())


def mse(x: Tensor, y: Tensor, weights: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Sum of weights * (x - y)^2, or its mean over all elements regardless of weights; shapes broadcast -> scalar."""
    errors = weights.float() * (x.float() - y.float()).square()
    return errors.mean() if reduction == "mean" else errors.sum()
