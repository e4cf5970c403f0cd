"""Pairs of rows of two large sets, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

_BLOCK_NUMBERS = 1 << 24
"""Of a block of the table of all pairs: 128 MiB in float64."""


def iterate_dot_products(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of x, and their dot products with all rows of y, in float64; until all rows of x have come.

    x: N x D. y: M x D. -> (slice of the rows, n x M).
    """
    x, y = x.double(), y.double()
    step = max(1, _BLOCK_NUMBERS // max(1, len(y)))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        yield rows, x[rows] @ y.T


def iterate_squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of x, and their squared Euclidean distances from all rows of y, in float64; see above.

    The rows are moved to where y's mean is 0 before they are multiplied, for less rounding.
    """
    x, y = x.double(), y.double()
    center = y.mean(dim=0)
    x, y = x - center, y - center
    norms = y.square().sum(dim=1)
    for rows, products in iterate_dot_products(x, y):
        squares = x[rows].square().sum(dim=1, keepdim=True) + norms - 2 * products
        yield rows, squares.clamp(min=0)
