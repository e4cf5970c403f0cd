"""Nearest-neighbor upsampling by 2 followed by a convolution, as a smaller convolution before it (Shi et al. 2016).

Of the k x k inputs of a pixel, many are equal: they come from s x s pixels before the upsampling, s = (k + 1) / 2. So
each of the four pixels that one becomes has a kernel of s x s sums of weights: s x s multiplications, not k x k.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.nn.precision import full_precision

Convolve = Callable[[Tensor, Tensor], Tensor]
"""Input and kernel -> their convolution without padding."""

_LOW_RES_MODES = {"zeros": "constant", "replicate": "replicate", "reflect": "replicate", "circular": "circular"}
"""Padding modes, and torch's names of those before the upsampling that mean the same; `reflect` needs corrections."""

_SUMS, _CORRECTIONS = 250.0, 8.0
"""Time of one sum of weights, and of a multiplication in a correction, in units of a multiplication of the direct
convolution (measured: benchmarks/convolutions.py)."""

_GAIN = 0.85
"""It has to take at most this share of the direct convolution's estimated time."""


def should_use_subpixel(x: Tensor, weight: Tensor, padding_mode: str) -> bool:
    """Whether `upsampled_conv2d` is faster than upsampling and convolving for these: on CPUs, for large images."""
    count, _, height, width = x.shape
    size = weight.shape[-1]
    padding, sums = size // 2, (size + 1) ** 2
    if not x.is_cpu or min(height, width) <= padding:
        return False
    direct = 4 * height * width * size**2
    own = height * width * sums + _SUMS * sums / max(count, 1)
    if padding_mode == "reflect":
        own += _CORRECTIONS * 4 * (height + width) * (padding - 1) ** 2 * size
    return own < _GAIN * direct


def upsampled_conv2d(x: Tensor, weight: Tensor, *, padding_mode: str, convolve: Convolve) -> Tensor:
    """The convolution of the upsampled x, padded to keep its size: N x C x H x W, O x C x k x k -> N x O x 2H x 2W.

    k is odd, and no larger than 2 min(H, W). padding_mode: as of nn.Conv2d.
    """
    size = weight.shape[-1]
    padding = size // 2
    reach = (padding + 1) // 2
    padded = F.pad(x, (reach,) * 4, _LOW_RES_MODES[padding_mode]) if reach else x
    y = convolve(padded, _sum_weights(weight))
    if size % 4 == 1:
        y = F.pixel_shuffle(y, 2)
    else:  # the two pixels that one becomes look one pixel less far to the left, or to the right
        height, width = x.shape[-2:]
        y = y.unflatten(1, (-1, 4))
        corners = [y[:, :, 2 * a + b, a : a + height, b : b + width] for a in range(2) for b in range(2)]
        y = F.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2), 2)
    if padding_mode != "reflect" or padding < 2:  # the first two rows are the same
        return y
    y = _correct_rows(y, x, weight, "reflect")
    turned = _correct_rows(y.transpose(2, 3), x.transpose(2, 3), weight.transpose(2, 3), "replicate")
    return turned.transpose(2, 3)


def _sum_weights(weight: Tensor) -> Tensor:
    """O x C x k x k -> 4 O x C x s x s: the kernels of the four pixels that one becomes, for pixel_shuffle."""
    outputs, inputs, size, _ = weight.shape
    sums = (size + 1) // 2
    with full_precision(weight):
        kernels = weight.reshape(-1, size**2) @ _sum_matrix(size, weight)
    return kernels.view(outputs, inputs, 4, sums, sums).transpose(1, 2).reshape(4 * outputs, inputs, sums, sums)


def _sum_matrix(size: int, like: Tensor) -> Tensor:
    """k^2 x 4 s^2: which weights of a kernel meet the same pixel, for each of the four pixels that one becomes."""
    padding = size // 2
    halves, indices = torch.arange(2)[:, None], torch.arange(size)
    met = (halves + indices - padding).div(2, rounding_mode="floor") - (halves - padding).div(2, rounding_mode="floor")
    of_row = F.one_hot(met, (size + 1) // 2)  # 2 x k x s
    of_both = torch.einsum("aki,blj->klabij", of_row, of_row)
    return of_both.reshape(size**2, -1).to(like)


def _correct_rows(y: Tensor, x: Tensor, weight: Tensor, of_columns: str) -> Tensor:
    """y, with rows beyond the border that are those of x reflected after the upsampling, instead of its first and last.

    of_columns: what is beyond the other borders.
    """
    padding = weight.shape[-1] // 2
    rows = padding - 1

    def correction(x: Tensor, weight: Tensor) -> Tensor:
        """Of the first rows."""
        beyond = x[:, :, [row // 2 for row in range(padding, 1, -1)]] - x[:, :, :1]
        beyond = F.pad(beyond.repeat_interleave(2, dim=3), (padding, padding, 0, 0), of_columns)
        kernel = weight[:, :, :rows].to(beyond)
        return F.conv2d(F.pad(beyond, (0, 0, 0, rows - 1)), kernel).to(y.dtype)

    top, bottom = correction(x, weight), correction(x.flip(2), weight.flip(2)).flip(2)
    return torch.cat([y[:, :, :rows] + top, y[:, :, rows:-rows], y[:, :, -rows:] + bottom], dim=2)
