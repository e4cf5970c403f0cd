"""How far images are from those that they should be."""

from __future__ import annotations

from torch import Tensor


def l1(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference per image: N x C x H x W in [0, 1], twice -> N."""
    return (images - targets).abs().flatten(1).mean(dim=1)


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal to noise ratio per image in decibels: N x C x H x W in [0, 1], twice -> N; at most 100."""
    error = (images - targets).square().flatten(1).mean(dim=1)
    return -10 * error.clamp(min=1e-10).log10()


def l1_changed(images: Tensor, targets: Tensor, start: Tensor, tolerance: float = 0.02) -> Tensor:
    """Mean absolute difference per image over the pixels that had to change: N x C x H x W in [0, 1] each -> N.

    These are the pixels in which some channel of the target is further than `tolerance` from `start`, what was there
    before. NaN for an image without any. What only has to be kept does not water this down.
    """
    changed = ((targets - start).abs() > tolerance).any(dim=1, keepdim=True).flatten(1)
    errors = (images - targets).abs().mean(dim=1, keepdim=True).flatten(1)
    return (errors * changed).sum(dim=1) / changed.sum(dim=1)
