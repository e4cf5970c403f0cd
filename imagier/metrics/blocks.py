"""Pairs of rows of two large sets, a tile of the table of all pairs at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_TILE = 2048
_MOST_EXACT_PAIRS = 1 << 26
"""Products of larger tables are made in float32: twice as fast, and with so many pairs rounding averages out."""


@dataclass(frozen=True)
class Tile:
    """A part of the table of all pairs."""

    rows: slice
    columns: slice
    values: Tensor
    """n x m, float64."""
    error: Tensor | None = None
    """n x m: how far squared distances may be off by rounding."""

    @property
    def weight(self) -> int:
        """How often it is in the table of a set with itself, which is symmetric."""
        return 1 if self.rows == self.columns else 2


def iterate_dot_products(x: Tensor, y: Tensor | None = None) -> Iterator[Tile]:
    """Tiles of the dot products of the rows of x, N x D, and y, M x D; see `Tile.weight`.

    y: None for x itself, whose tiles below the diagonal are left out.
    """
    center = _find_center(x, y)
    moved_x, moved_y = _move(x, y, center)
    shift_x, shift_y = (_by_parts(moved, center)[0] for moved in (moved_x, moved_y))
    for rows, columns in _iterate_slices(len(x), len(moved_y), y is None):
        products = (moved_x[rows] @ moved_y[columns].T).double()
        products += shift_x[rows, None] + (shift_y[columns] + center @ center)
        yield Tile(rows, columns, products)


def iterate_squared_distances(x: Tensor, y: Tensor | None = None) -> Iterator[Tile]:
    """Tiles of the squared Euclidean distances of the rows of x, N x D, and y, M x D; see above."""
    center = _find_center(x, y)
    moved_x, moved_y = _move(x, y, center)
    norms_x, norms_y = (_by_parts(moved, center)[1] for moved in (moved_x, moved_y))
    relative = 2e-6 if moved_x.dtype == torch.float32 else 1e-13
    for rows, columns in _iterate_slices(len(x), len(moved_y), y is None):
        norms = norms_x[rows, None] + norms_y[columns]
        squares = norms.sub((moved_x[rows] @ moved_y[columns].T).double(), alpha=2).clamp_(min=0)
        yield Tile(rows, columns, squares, norms.mul_(relative))


def _find_center(x: Tensor, y: Tensor | None) -> Tensor:
    """What is taken from all rows before they are multiplied, for less rounding."""
    rows = x if y is None else y
    total = torch.stack([part.double().sum(dim=0) for part in rows.split(_TILE)]).sum(dim=0)
    return (total / len(rows)).float().double()


def _move(x: Tensor, y: Tensor | None, center: Tensor) -> tuple[Tensor, Tensor]:
    is_large = len(x) * len(x if y is None else y) > _MOST_EXACT_PAIRS
    dtype = torch.float32 if is_large else torch.float64
    moved = [
        torch.cat([(part.double() - center).to(dtype) for part in rows.split(_TILE)])
        for rows in (x, y)
        if rows is not None
    ]
    return moved[0], moved[-1]


def _by_parts(moved: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """The dot products of rows with the center, and their squared lengths, in float64."""
    parts = moved.split(_TILE)
    dots = torch.cat([part.double() @ center for part in parts])
    return dots, torch.cat([part.double().square().sum(dim=1) for part in parts])


def _iterate_slices(n: int, m: int, is_symmetric: bool) -> Iterator[tuple[slice, slice]]:
    for row in range(0, n, _TILE):
        for column in range(row if is_symmetric else 0, m, _TILE):
            yield slice(row, min(row + _TILE, n)), slice(column, min(column + _TILE, m))
