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
    center = along.mean()
    powers = np.vander(along - center, len(points))
    factors = np.linalg.lstsq(powers, across, rcond=None)[0]
    if len(points) == 3 and abs(factors[0]) > 1:
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
    reach = range(-width, width)
    for down in reach:
        for right in reach:
            _color(canvas, pixels + np.array((right, down)), color)
    if has_discs:
        reach, ends = range(-2 * width, 2 * width), pixels[[0, -1]]
        for down in reach:
            for right in reach:
                if down**2 + right**2 < 4 * width**2:
                    _color(canvas, ends + np.array((right, down)), color)


def _color(canvas: np.ndarray, pixels: np.ndarray, color: Sequence[int]) -> None:
    height, width, channels = canvas.shape
    x, y = pixels[:, 0].clip(0, width - 1), pixels[:, 1].clip(0, height - 1)
    there = canvas[y, x]
    if channels == 3 and there.any():
        canvas[y, x] = (there.astype(np.uint16) + np.array(color, np.uint16)) // 2
    else:
        canvas[y, x] = color
