"""Features of images that need no network, for tests: `features: feature_code:colors`."""

from __future__ import annotations

import torch
from torch import Tensor


def colors(images: Tensor) -> Tensor:
    """N x 3 x H x W in [0, 1] -> N x 6: mean and spread of each channel."""
    return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


def projected(images: Tensor) -> Tensor:
    """N x 3 x H x W in [0, 1] -> N x 4: by a product of matrices, which autocast makes less precise."""
    weights = torch.linspace(-1, 1, 4 * images[0].numel(), device=images.device).view(-1, 4)
    return images.flatten(1) @ weights


def brightness(images: Tensor) -> tuple[Tensor, Tensor]:
    """N x 3 x H x W in [0, 1] -> N x 1, and logits of two classes, N x 2."""
    mean = images.mean(dim=(1, 2, 3))
    return mean[:, None], torch.stack([mean, 1 - mean], dim=1)


def first_and_last_colors(clips: Tensor) -> Tensor:
    """N x 16 x 3 x H x W -> the mean colors of the first and of the last frame."""
    assert clips.shape[1:3] == (16, 3)
    return torch.cat([clips[:, 0].mean(dim=(2, 3)), clips[:, -1].mean(dim=(2, 3))], dim=1)
