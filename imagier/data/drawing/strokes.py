"""Curves through a few points, and strokes along them, pixel by pixel as the reference drew key points.

Wang et al., Video-to-Video Synthesis, 2018, section 5: sketches of faces and poses are what the network sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_LONGEST_PX = 100_000
"""A point so far away is no part of an image."""

_ROUNDING = 1e-6
"""A whole number stays one."""


def trace_curve(points: np.ndarray) -> np.ndarray:
    """The pixels of the line through 2 points, or of the parabola through 3: M x 2, x and y, cut off to whole numbers.

    points: 2 or 3 x 2. Along the longer side there is about one a pixel. M is 0 where the points lie together, and
    where the parabola is so bent that its points can only be mistaken.
    """
    nothing = np.zeros((0, 2), np.int64)
    spans = np.abs(np.diff(points, axis=0)).max(axis=0)
    swaps = bool(spans[0] < spans[1])
    along, across = points[:, ::-1].T if swaps else points.T
    count = round(abs(float(along[-1] - along[0])))
    if not 0 < count <= _LONGEST_PX:
        return nothing
    if len(points) == 2:
        center, factors = along[0], np.array([(across[1] - across[0]) / (along[1] - along[0]), across[0]])
    else:
        center = along.mean()
        factors = np.linalg.lstsq(np.vander(along - center, 3), across, rcond=None)[0]
        if abs(factors[0]) > 1:
            return nothing
    sampled = np.linspace(along.take((0, -1)).min(), along.take((0, -1)).max(), count)
    traced = np.stack([sampled, np.polyval(factors, sampled - center)], axis=1)
    return ((traced[:, ::-1] if swaps else traced) + _ROUNDING).astype(np.int64)


def split_chain(chain: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """A chain in pieces of `size` points, each beginning where the one before ends; the last may be shorter."""
    step = size - 1
    for at in range(0, max(1, len(chain) - 1), step):
        yield chain[at : at + size]


def draw_stroke(
    canvas: np.ndarray, pixels: np.ndarray, width: int, color: Sequence[int], *, has_discs: bool = False
) -> None:
    """Draws along pixels M x 2, x and y, on H x W x C, uint8, in place: a square of 2 `width` px at each.

    On a canvas of three channels a color mixes with what is there. has_discs: with a disc at either end.
    """
    if not len(pixels):
        return
    mixes = canvas.shape[2] == 3
    reach = range(-width, width)
    _color(canvas, pixels, [(right, down) for down in reach for right in reach], color, mixes)
    if has_discs:
        reach = range(-2 * width, 2 * width)
        disc = [(right, down) for down in reach for right in reach if down**2 + right**2 < 4 * width**2]
        _color(canvas, pixels[[0, -1]], disc, color, mixes)


def _color(
    canvas: np.ndarray, pixels: np.ndarray, offsets: Sequence[tuple[int, int]], color: Sequence[int], mixes: bool
) -> None:
    """Gives the pixels a color, moved by one offset after the other."""
    height, width = canvas.shape[:2]
    moved = pixels[None] + np.array(offsets)[:, None]
    x, y = np.minimum(np.maximum(moved, 0), (width - 1, height - 1)).transpose(2, 0, 1)
    if not mixes:
        canvas[y, x] = color
        return
    for row, column in zip(y, x):
        there = canvas[row, column]
        canvas[row, column] = (there.astype(np.uint16) + np.array(color, np.uint16)) // 2 if there.any() else color
