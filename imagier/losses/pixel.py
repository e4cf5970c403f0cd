"""Distances of pictures, pixel by pixel."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def weighted_mse(x: Tensor, y: Tensor, weights: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Sum of weights * (x - y)^2, or its mean over all elements, whatever they weigh; shapes broadcast -> scalar."""
    errors = weights.float() * (x.float() - y.float()).square()
    return errors.mean() if reduction == "mean" else errors.sum()
