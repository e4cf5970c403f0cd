"""Tiles that cover an image: where they lie, and how their images are blended into the rows of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from imagier.data.augmentation.warp import Part, Size
from imagier.errors import UserError

CUT_SHARE = 0.25
"""Of an overlap, at each end: so near to its border, where it does not see what lies beyond, a tile counts nothing."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The tiles that a caller wants."""

    height: int
    width: int
    """Of a tile; where an image is smaller, as large as that. [pixels]"""
    overlap: int | None = None
    """Rows or columns that neighbors share, at least; None: a quarter of a tile's smaller side. [pixels]"""

    def __post_init__(self) -> None:
        """UserError for numbers that no tiles can have."""
        if min(self.height, self.width) < 1:
            raise UserError(f"is {self.height} x {self.width}", where="tile", code="wrong-number")
        if self.overlap is not None and not 0 <= self.overlap <= min(self.height, self.width) // 2:
            what = f"is {self.overlap}, but must be from 0 to half a side of a tile"
            raise UserError(what, where="overlap", advice="choose larger tiles", code="wrong-number")

    def check_multiple(self, multiple: int) -> None:
        """UserError unless the sides of a tile are multiples of what the network takes, and of two such, to overlap."""
        height, width = (max(side // multiple, 2) * multiple for side in (self.height, self.width))
        if (height, width) != (self.height, self.width):
            what = f"is {self.height} x {self.width}, but this network takes multiples of {multiple} px, from two on"
            raise UserError(what, where="tile", advice=f"try `tile` {height} {width}", code="wrong-tile")

    def without_overlap(self) -> Tiling:
        """The same tiles, of which no two share more than they must."""
        return replace(self, overlap=0)

    def lay(self, size: Size, multiple: int) -> Grid:
        """The tiles of an image, whose sides are rounded up to multiples, and so are the places of tiles."""
        overlap = min(self.height, self.width) // 4 if self.overlap is None else self.overlap
        overlap = -(-overlap // multiple) * multiple
        sides = (-(-side // multiple) * multiple for side in size)
        rows, columns = (
            _lay_axis(side, min(tile, side), min(overlap, tile - multiple), multiple)
            for side, tile in zip(sides, (self.height, self.width))
        )
        return Grid(rows, columns)


@dataclass(frozen=True)
class Axis:
    """The places of tiles from top to bottom, or from left to right."""

    starts: Sequence[int]
    side: int
    """Of a tile. [pixels]"""
    weights: Sequence[Tensor]
    """For each tile, [side]: how much its pixels count. At every pixel of the image they add up to 1."""

    @property
    def length(self) -> int:
        """Of the whole image. [pixels]"""
        return self.starts[-1] + self.side


def _lay_axis(length: int, side: int, overlap: int, multiple: int) -> Axis:
    """As few tiles as there can be, spread evenly. length, side, overlap: multiples of `multiple`."""
    count = 1 if side == length else -(-(length - overlap) // (side - overlap))
    free = (length - side) // multiple
    starts = [free * index // max(count - 1, 1) * multiple for index in range(count)]
    shared = [before + side - after for before, after in pairwise(starts)]
    raw = [_ramp(side, first) * _ramp(side, last).flip(0) for first, last in zip([0, *shared], [*shared, 0])]
    total = torch.zeros(length)
    for start, weights in zip(starts, raw):
        total[start : start + side] += weights
    return Axis(starts, side, [weights / total[at : at + side] for at, weights in zip(starts, raw)])


def _ramp(side: int, shared: int) -> Tensor:
    """[side]: 0 near the border, then up in a half wave of the cosine, 1 behind what is shared with a neighbor."""
    if shared == 0:
        return torch.ones(side)
    cut = shared * CUT_SHARE
    at = ((torch.arange(side) + 0.5 - cut) / (shared - 2 * cut)).clamp(0, 1)
    return (1 - torch.cos(torch.pi * at)) / 2


@dataclass(frozen=True)
class Grid:
    """The tiles of one image."""

    rows: Axis
    columns: Axis

    @property
    def size(self) -> Size:
        """Height and width of all tiles together."""
        return self.rows.length, self.columns.length

    def list_parts(self) -> list[Part]:
        """The tiles, row by row."""
        return [self._get_part(top, left) for top in self.rows.starts for left in self.columns.starts]

    def _get_part(self, top: int, left: int) -> Part:
        return Part(top, top + self.rows.side, left, left + self.columns.side)

    def paint(self, paint: Callable[[Part], Tensor]) -> Iterator[Tensor]:
        """The rows of an image, C x h x width each, from top to bottom, as soon as no later tile has a part in them.

        paint: makes the image of a tile, C x side x side. In memory are the rows of one row of tiles.
        """
        rows = self.rows
        kept: Tensor | None = None
        for start, after, weights in zip(rows.starts, [*rows.starts[1:], rows.length], rows.weights):
            strip = self._paint_strip(start, paint) * weights[:, None]
            if kept is not None:
                strip[:, : kept.shape[1]] += kept
            yield strip[:, : after - start]
            kept = strip[:, after - start :].clone()

    def _paint_strip(self, top: int, paint: Callable[[Part], Tensor]) -> Tensor:
        """A row of tiles, side by side: C x side x width."""
        strip: Tensor | None = None
        for left, weights in zip(self.columns.starts, self.columns.weights):
            part = self._get_part(top, left)
            tile = paint(part).float().cpu()
            if strip is None:
                strip = torch.zeros(len(tile), self.rows.side, self.columns.length)
            strip[:, :, left : part.right] += tile * weights
        assert strip is not None
        return strip
