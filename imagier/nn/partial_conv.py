"""Convolutions of images that are known in some places alone (Liu et al. 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6


def partial_conv(conv: nn.Module, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A convolution of known pixels, scaled up by the share of its kernel that they fill, and where that is not none.

    conv: a convolution with a bias that keeps the size. x: N x C x H x W. mask: N x 1 x H x W, 1 where x is known, else
    0. -> N x C' x H x W, 0 where nothing is known, and the new mask N x 1 x H x W.
    """
    height, width = conv.kernel_size  # type: ignore[misc]
    bias = conv.bias[:, None, None]  # type: ignore[index]
    count = F.conv2d(mask, mask.new_ones(1, 1, height, width), padding=(height // 2, width // 2))
    known = count.clamp(0, 1)
    ratio = height * width / (count + _EPS) * known
    return ((conv(x * mask) - bias) * ratio + bias) * known, known
