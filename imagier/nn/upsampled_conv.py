"""Nearest-neighbor upsampling by 2 followed by a convolution, as a smaller convolution before it (Shi et al. 2016).

Of the k x k inputs of a pixel, many are equal: they come from s x s pixels before the upsampling, s = (k + 1) / 2. So
each of the four pixels that one becomes has a kernel of s x s sums of weights: s x s multiplications, not k x k.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.nn.memory_format import find_format
from imagier.nn.padding import pad
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
    padded = pad(x, (reach,) * 4, _LOW_RES_MODES[padding_mode]) if reach else x
    y = convolve(padded, _sum_weights(weight))
    # If s is even, the two pixels that one becomes look one pixel less far to the left, or to the right.
    y = F.pixel_shuffle(y if size % 4 == 1 else _Corners.apply(y), 2)
    if padding_mode != "reflect" or padding < 2:  # the first two rows are the same
        return y
    return _AddBorders.apply(y, *_corrections(x, weight))


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


def _corrections(x: Tensor, weight: Tensor) -> list[Tensor]:
    """What the first and last rows, and the first and last columns, lack of the convolution with reflected borders."""
    reach = weight.shape[-1] // 4 + 1  # the rows of x that are met beyond a border, and the first one
    top, bottom, left, right = _Borders.apply(x, reach)
    turned = weight.transpose(2, 3)
    return [
        _correct(top, weight, "reflect"),
        _correct(bottom.flip(2), weight.flip(2), "reflect").flip(2),
        _correct(left.transpose(2, 3), turned, "replicate").transpose(2, 3),
        _correct(right.flip(3).transpose(2, 3), turned.flip(2), "replicate").transpose(2, 3).flip(3),
    ]


def _correct(x: Tensor, weight: Tensor, of_columns: str) -> Tensor:
    """For the first rows of the output, from those of x; of_columns: what is beyond the other borders."""
    padding = weight.shape[-1] // 2
    rows = padding - 1
    # Rows beyond the border are those of x reflected after the upsampling, not the first one again.
    beyond = torch.stack([x[:, :, row // 2] for row in range(padding, 1, -1)], dim=2) - x[:, :, :1]
    beyond = pad(beyond.repeat_interleave(2, dim=3), (padding, padding, 0, 0), of_columns)
    return F.conv2d(F.pad(beyond, (0, 0, 0, rows - 1)), weight[:, :, :rows].to(beyond))


class _Corners(torch.autograd.Function):
    """N x 4 O x H x W -> N x 4 O x H-1 x W-1: of four channels each, without the last or first row and column."""

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        shape = (*y.shape[:2], y.shape[2] - 1, y.shape[3] - 1)
        cut = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=find_format(y))
        for i, place in enumerate(_corners(*cut.shape[2:])):
            cut[:, i::4] = y[place]
        return cut

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.shape, ctx.format = inputs[0].shape, find_format(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = _zeros(grad, ctx.shape, ctx.format)
        for i, place in enumerate(_corners(*grad.shape[2:])):
            total[place] = grad[:, i::4]
        return total


def _corners(height: int, width: int) -> list[tuple[slice, ...]]:
    """Where in N x 4 O x H+1 x W+1 the channels of the upper left, the upper right, ... of the pixels that one becomes
    are, without the last row or the first one, and without the last column or the first one."""
    places = [(a, b) for a in range(2) for b in range(2)]
    return [
        (slice(None), slice(i, None, 4), slice(a, a + height), slice(b, b + width)) for i, (a, b) in enumerate(places)
    ]


def _zeros(like: Tensor, shape: torch.Size, memory_format: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format).zero_()


class _Borders(torch.autograd.Function):
    """The first and last rows, and the first and last columns, of an image; with one gradient for all of them."""

    @staticmethod
    def forward(x: Tensor, count: int) -> tuple[Tensor, ...]:
        return tuple(x[place].clone() for place in _places(count))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, ...]) -> None:
        x, ctx.count = inputs
        ctx.shape, ctx.format = x.shape, find_format(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = _zeros(grads[0], ctx.shape, ctx.format)
        for place, grad in zip(_places(ctx.count), grads):
            total[place] += grad
        return total, None


class _AddBorders(torch.autograd.Function):
    """An image, with something added to its first and last rows, and to its first and last columns."""

    @staticmethod
    def forward(y: Tensor, *borders: Tensor) -> Tensor:
        y = y.clone()
        for place, border in zip(_places(borders[0].shape[2]), borders):
            y[place] += border
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.count = inputs[1].shape[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *(grad[place] for place in _places(ctx.count))


def _places(count: int) -> tuple[tuple[Any, ...], ...]:
    """Where so many first and last rows, and first and last columns, are in N x C x H x W."""
    first, last = slice(None, count), slice(-count, None)
    return (..., first, slice(None)), (..., last, slice(None)), (..., first), (..., last)
