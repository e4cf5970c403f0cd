"""Nearest doubling followed by a convolution, as one smaller convolution before the doubling (Shi et al. 2016).

Of the k x k inputs of a pixel, many are equal: they come from s x s pixels before the doubling, s = (k + 1) / 2. So
each of the four pixels that one becomes has a kernel of s x s sums of weights: s x s multiplications, not k x k.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.nn.resize import upsample2x

Convolve = Callable[[Tensor, Tensor], Tensor]
"""Input and kernel -> their convolution without padding."""

_LOW_RES_MODES = {"zeros": "constant", "replicate": "replicate", "circular": "circular"}
"""Padding modes that mean the same before the doubling as after it, and what torch calls them."""


def upsampled_conv2d(x: Tensor, weight: Tensor, *, padding_mode: str, convolve: Convolve) -> Tensor:
    """The convolution of the doubled x, padded to keep its size: N x C x H x W, O x C x k x k -> N x O x 2H x 2W.

    k is odd. padding_mode: as of nn.Conv2d.
    """
    padding = weight.shape[-1] // 2
    reach = (padding + 1) // 2
    if padding_mode == "reflect" and padding == 1:
        padding_mode = "replicate"  # after the doubling, both pixels at the border are the same
    if padding_mode == "reflect":
        return _reflected(x, weight, padding, reach, convolve)
    padded = F.pad(x, (reach,) * 4, _LOW_RES_MODES[padding_mode]) if reach else x
    return _inside(padded, weight, convolve)


def _inside(x: Tensor, weight: Tensor, convolve: Convolve) -> Tensor:
    """The outputs whose inputs all lie in x: the doubled ones of all but (padding + 1) / 2 pixels at each border."""
    fold = _fold_matrices(weight.shape[-1]).to(weight)
    kernels = torch.einsum("aim,ocmn,bjn->oabcij", fold, weight, fold).flatten(0, 2)
    y = convolve(x, kernels)
    if weight.shape[-1] % 4 == 1:
        return F.pixel_shuffle(y, 2)
    # The two pixels that one becomes look one pixel less far to the left, or to the right.
    height, width = (side - 1 for side in y.shape[-2:])
    y = y.unflatten(1, (-1, 4))
    corners = [y[:, :, 2 * a + b, a : a + height, b : b + width] for a in range(2) for b in range(2)]
    return F.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2), 2)


def _reflected(x: Tensor, weight: Tensor, padding: int, reach: int, convolve: Convolve) -> Tensor:
    """With a border of reflected pixels, which only the doubled image has: the outputs there are computed from it."""

    def at_border(part: Tensor, **borders: bool) -> Tensor:
        pads = [padding * borders.get(name, False) for name in ("left", "right", "top", "bottom")]
        return convolve(F.pad(upsample2x(part), pads, "reflect"), weight)

    height = 2 * x.shape[-2]
    border = 2 * reach
    if min(x.shape[-2:]) <= border:
        return at_border(x, left=True, right=True, top=True, bottom=True)
    depth = (border + padding + 1) // 2
    rows = slice(border - padding, height - border - padding)
    left = at_border(x[..., :depth], left=True)[:, :, rows, :border]
    right = at_border(x[..., -depth:], right=True)[:, :, rows, -border:]
    middle = torch.cat([left, _inside(x, weight, convolve), right], dim=3)
    top = at_border(x[:, :, :depth], left=True, right=True, top=True)[:, :, :border]
    bottom = at_border(x[:, :, -depth:], left=True, right=True, bottom=True)[:, :, -border:]
    return torch.cat([top, middle, bottom], dim=2)


@cache
def _fold_matrices(size: int) -> Tensor:
    """2 x s x k: which weights of a row of a kernel meet the same pixel, for both pixels that it becomes."""
    padding = size // 2
    fold = torch.zeros(2, (size + 1) // 2, size)
    for half in range(2):
        for index in range(size):
            fold[half, (half + index - padding) // 2 - (half - padding) // 2, index] = 1
    return fold
