"""How far pictures are from those that they should be."""

from __future__ import annotations

from torch import Tensor


def l1(pictures: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference per picture: N x C x H x W in [0, 1], twice -> N."""
    return (pictures - targets).abs().flatten(1).mean(dim=1)


def psnr(pictures: Tensor, targets: Tensor) -> Tensor:
    """Peak signal to noise ratio per picture in decibels: N x C x H x W in [0, 1], twice -> N; at most 100."""
    error = (pictures - targets).square().flatten(1).mean(dim=1)
    return -10 * error.clamp(min=1e-10).log10()
