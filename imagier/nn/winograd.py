"""Convolutions with less arithmetic: Winograd's minimal filtering F(4 x 4, k x k) (Lavin & Gray 2016, section 4).

A tile of 4 x 4 outputs depends on a tile of n x n inputs, n = k + 3. Both tiles and the kernel are polynomials, whose
product is known from its values at n points. So a tile takes n x n multiplications for each pair of channels instead of
16 k x k (4 times fewer for k = 3, 6.25 times for k = 5), and some additions for each channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from math import ceil, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.nn.memory_format import find_format

TILE = 4
"""Height and width of a tile of outputs. [pixels]"""

KERNELS = (3, 5)
"""Heights and widths of the kernels for which this is accurate enough in float32. [pixels]"""

_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), Fraction(1, 2), Fraction(-1, 2))
"""Where the polynomials are evaluated, besides infinity; as small as possible, which keeps rounding errors small."""

_PRODUCTS, _CHANNELS, _KERNELS = 1.7, 100.0, 80.0
"""Time of one multiplication, and of transforming a value of a channel and of a kernel, in units of a multiplication of
the direct convolution (measured: benchmarks/convolutions.py)."""

_GAIN = 0.85
"""It has to take at most this share of the direct convolution's estimated time."""

_SMALLEST_CHUNK = 128
"""Tiles that are transformed at once: so many, or as many as there are channels. More would leave the cache."""


def should_use_winograd(x: Tensor, weight: Tensor, padding: int) -> bool:
    """Whether `conv2d` is faster than torch's own for these: in float32, on CPUs, in wide and large layers.

    x: N x C x H x W, weight: O x C x k x k, of a stride of 1.
    """
    size = weight.shape[-1]
    if torch.compiler.is_compiling():  # chunks and strides would be compiled anew for every size
        return False
    is_fit = x.is_cpu and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not is_fit or weight.shape[-2] != size or size not in KERNELS:
        return False
    (outputs, inputs), (count, _, *sides) = weight.shape[:2], x.shape
    height, width = (side + 2 * padding - size + 1 for side in sides)
    tiles = count * ceil(height / TILE) * ceil(width / TILE)
    direct = size**2 * inputs * outputs * count * height * width / max(tiles, 1)
    pairs = inputs * outputs
    own = (TILE + size - 1) ** 2 * (
        _PRODUCTS * pairs + _CHANNELS * (inputs + outputs) + _KERNELS * pairs / max(tiles, 1)
    )
    return own < _GAIN * direct


def conv2d(x: Tensor, weight: Tensor, padding: int = 0) -> Tensor:
    """The convolution of N x C x H x W with O x C x k x k, of a stride of 1 -> N x O x H' x W'.

    It can be differentiated any number of times.
    k is one of KERNELS; `padding` zeros surround the input, fewer than k. In float32, errors are about 5 times those of
    the direct form, relative to the largest output.
    """
    return _Convolution.apply(x, weight, padding)


class _Convolution(torch.autograd.Function):
    """The convolution. Its gradients are a convolution, too, and the gradient of a kernel."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: int) -> Tensor:
        size = weight.shape[-1]
        to_outputs, of_kernel, of_inputs = _transforms(size, x.dtype, x.device)
        shape = (len(x), len(weight), *(side + 2 * padding - size + 1 for side in x.shape[-2:]))
        rows, columns = _tiles(shape)
        memory_format = find_format(x)
        whole = (*shape[:2], rows * TILE, columns * TILE)
        y = torch.empty(whole, dtype=x.dtype, device=x.device, memory_format=memory_format)
        kernel = _apply(of_kernel, weight.permute(2, 3, 1, 0)).flatten(0, 1)
        padded = _pad(x, padding, rows, columns, size)
        by_tile = y.permute(0, 2, 3, 1).unflatten(2, (columns, TILE)).unflatten(1, (rows, TILE))
        for some in _chunks(shape, max(weight.shape[:2])):
            values = _apply(of_inputs, _overlapping_tiles(padded, some, columns, size)).flatten(0, 1)
            products = torch.bmm(values.flatten(1, -2), kernel).view(*of_inputs.shape, *values.shape[1:-1], -1)
            by_tile[:, some].copy_(_apply(to_outputs, products).permute(2, 3, 0, 4, 1, 5))
        # Not a view, which nobody could change in place.
        return y if y.shape == shape else y[..., : shape[2], : shape[3]].contiguous(memory_format=memory_format)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        x, weight, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad[:2]
        return (
            _transposed(grad, weight, ctx.padding) if of_x else None,
            _KernelGradient.apply(x, grad, ctx.padding) if of_weight else None,
            None,
        )


class _KernelGradient(torch.autograd.Function):
    """The gradient of the convolution's kernel, from its input and the gradient of its output."""

    @staticmethod
    def forward(x: Tensor, grad: Tensor, padding: int) -> Tensor:
        size = x.shape[-1] + 2 * padding - grad.shape[-1] + 1
        to_outputs, of_kernel, of_inputs = _transforms(size, x.dtype, x.device)
        rows, columns = _tiles(grad.shape)
        padded = _pad(x, padding, rows, columns, size)
        grad = _pad(grad, 0, rows, columns, 1)
        total = None
        for some in _chunks(grad.shape, max(x.shape[1], grad.shape[1])):
            values = _apply(of_inputs, _overlapping_tiles(padded, some, columns, size)).flatten(2, -2).flatten(0, 1)
            of_tiles = _apply(to_outputs.T.contiguous(), _overlapping_tiles(grad, some, columns, 1))
            factors = values.transpose(1, 2), of_tiles.flatten(2, -2).flatten(0, 1)
            total = torch.bmm(*factors) if total is None else total.baddbmm_(*factors)
        assert total is not None  # there is a row
        kernel = _apply(of_kernel.T.contiguous(), total.unflatten(0, of_inputs.shape))
        return kernel.permute(3, 2, 0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        x, grad, ctx.padding = inputs
        ctx.save_for_backward(x, grad)

    @staticmethod
    def backward(ctx: Any, kernel: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, grad = ctx.saved_tensors
        of_x, of_grad = ctx.needs_input_grad[:2]
        return (
            _transposed(grad, kernel, ctx.padding) if of_x else None,
            conv2d(x, kernel, ctx.padding) if of_grad else None,
            None,
        )


def _transposed(grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    """The gradient of a convolution's input: the convolution of that of its output with the mirrored kernel."""
    return conv2d(grad, weight.flip(2, 3).transpose(0, 1), weight.shape[-1] - 1 - padding)


def _tiles(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the tiles that cover outputs of this shape."""
    return ceil(shape[-2] / TILE), ceil(shape[-1] / TILE)


def _chunks(shape: tuple[int, ...], channels: int) -> Iterator[slice]:
    """The rows of tiles, a few at a time."""
    rows, columns = _tiles(shape)
    chunks = round(shape[0] * rows * columns / max(channels, _SMALLEST_CHUNK))
    step = ceil(rows / min(max(chunks, 1), rows))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _pad(x: Tensor, padding: int, rows: int, columns: int, size: int) -> Tensor:
    """x with `padding` zeros before it, and as many after it as whole tiles need."""
    height, width = (count * TILE + size - 1 for count in (rows, columns))
    return F.pad(x, (padding, width - padding - x.shape[3], padding, height - padding - x.shape[2]))


def _overlapping_tiles(padded: Tensor, rows: slice, columns: int, size: int) -> Tensor:
    """Tiles of N x C x H x W for kernels of `size`, in these rows -> n x n x N x rows x columns x C."""
    n = TILE + size - 1
    of_sample, of_channel, of_row, of_column = padded.stride()
    shape = (n, n, len(padded), rows.stop - rows.start, columns, padded.shape[1])
    strides = (of_row, of_column, of_sample, TILE * of_row, TILE * of_column, of_channel)
    start = padded.storage_offset() + rows.start * TILE * of_row
    return padded.as_strided(shape, strides, start)


def _apply(matrix: Tensor, tiles: Tensor) -> Tensor:
    """matrix b x a from both sides to tiles a x a x ... -> b x b x ..."""
    (b, a), rest = matrix.shape, tiles.shape[2:]
    half = matrix @ tiles.reshape(a, -1)
    return torch.matmul(matrix, half.view(b, a, -1)).view(b, b, *rest)


@cache
def _transforms(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For kernels of this size: 4 x n to outputs, n x size of a kernel, n x n of inputs.

    A^T, G and B^T of Lavin & Gray.
    """
    n = TILE + size - 1
    points = _POINTS[: n - 1]
    at_infinity = [Fraction(row == TILE - 1) for row in range(TILE)]
    to_outputs = [[*(point**row for point in points), at_infinity[row]] for row in range(TILE)]
    of_kernel, of_inputs = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = prod((point - other for other in others), start=Fraction(1))
        of_kernel.append([point**power / scale for power in range(size)])
        of_inputs.append([*_coefficients(others), Fraction(0)])
    of_kernel.append([Fraction(power == size - 1) for power in range(size)])
    of_inputs.append(_coefficients(points))
    matrices = (to_outputs, of_kernel, of_inputs)
    return tuple(  # type: ignore[return-value]
        torch.tensor([[float(value) for value in row] for row in matrix], dtype=dtype, device=device)
        for matrix in matrices
    )


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the polynomial with these roots, that of the constant first."""
    found = [Fraction(1)]
    for root in roots:
        found = [low - root * high for low, high in zip([Fraction(0), *found], [*found, Fraction(0)])]
    return found
