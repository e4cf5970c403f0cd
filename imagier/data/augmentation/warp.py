"""Geometry of augmentations: each change by itself, and many of them as one warp of the image.

Points are (x, y), and the center of a pixel has whole numbers. An image is resampled once: where only one change moves
pixels by fractions, that one runs as OpenCV's function for it, between slices; where several do, their product does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from imagier.errors import UserError

Size = tuple[int, int]
"""(height, width) in pixels."""


class Part(NamedTuple):
    """A part of an image: the numbers of its first row and column, and of those after the last."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left


Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the point (x, y) goes to (a x + b y + c, d x + e y + f)."""

Resample = Callable[[np.ndarray, int], np.ndarray]
"""(image H x W x C, an interpolation of OpenCV) -> the image after a change that moves pixels by fractions."""

_IDENTITY: Affine = (1, 0, 0, 0, 1, 0)

_MOST_WARPED_PX = 32766
"""The longest side that OpenCV's warps take; cv2.resize takes any."""


@dataclass(frozen=True)
class Step:
    """One change of geometry: where the points of an image come from that is made of one of another size."""

    source: Affine
    """A point after the change -> the same point before it."""
    before: Size
    after: Size
    resample: Resample | None = None
    """The change by itself; None where pixels move as a whole."""
    reflects: bool = False
    """It looks beyond the border of its image, and finds the mirrored image there (cv2.BORDER_REFLECT_101)."""


def resize(before: Size, after: Size, extent: tuple[float, float] | None = None) -> list[Step]:
    """From one size to another; no step where they are the same.

    extent: height and width of what the image shows, in its pixels, where that is no whole number of them: an image
    that was decoded at reduced scale may show a fraction of its last row and column.
    """
    shown_h, shown_w = extent or before
    if (shown_h, shown_w) == after:
        return []
    source = _scaling((shown_h, shown_w), after)

    def resample(image: np.ndarray, interpolation: int) -> np.ndarray:
        if (shown_h, shown_w) != before:
            if interpolation == cv2.INTER_LINEAR:
                return _affine(image, source, after, interpolation)
            # A warp cannot do all that cv2.resize can (INTER_AREA), which needs an image that fills its pixels.
            image = _affine(image, _scaling((shown_h, shown_w), before), before, cv2.INTER_LINEAR)
        return cv2.resize(image, after[::-1], interpolation=interpolation)

    return [Step(source, before, after, resample)]


def _scaling(before: tuple[float, float], after: Size) -> Affine:
    """A point of an image of the height and width `after` -> the same in one of `before`."""
    y, x = before[0] / after[0], before[1] / after[1]
    return x, 0, (x - 1) / 2, 0, y, (y - 1) / 2


def turn(size: Size, angle: float) -> list[Step]:
    """By an angle in degrees, counter-clockwise, about (width / 2, height / 2); the size stays."""
    if angle == 0:
        return []
    height, width = size
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)

    def resample(image: np.ndarray, interpolation: int) -> np.ndarray:
        return cv2.warpAffine(image, matrix, (width, height), flags=interpolation, borderMode=cv2.BORDER_REFLECT_101)

    return [Step(tuple(cv2.invertAffineTransform(matrix).ravel().tolist()), size, size, resample, reflects=True)]


def crop(before: Size, top: int, left: int, after: Size) -> list[Step]:
    """The part of an image that begins at (top, left). UserError if it is larger than the image."""
    if after[0] > before[0] or after[1] > before[1]:
        raise UserError(
            f"crop {after[0]} x {after[1]} is larger than the image, {before[0]} x {before[1]} after resizing",
            advice="lower the crop or raise resize_smallest_side",
        )
    return [Step((1, 0, left, 0, 1, top), before, after)]


def enlarge(part: Part, after: Size) -> list[Step]:
    """A part of an image, resized."""
    return [*crop((part.bottom, part.right), part.top, part.left, part.size), *resize(part.size, after)]


def mirror(size: Size) -> list[Step]:
    """Left becomes right."""
    return [Step((-1, 0, size[1] - 1, 0, 1, 0), size, size)]


def turn_quarters(size: Size, turns: int) -> list[Step]:
    """So many quarter turns, counter-clockwise."""
    steps = []
    for _ in range(turns):
        steps.append(Step((0, -1, size[1] - 1, 1, 0, 0), size, size[::-1]))
        size = size[::-1]
    return steps


class Moves:
    """Steps for any number of images of one size. Of several that resample together, one warp is made."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.resampling = [i for i, step in enumerate(steps) if step.resample]

    def __call__(self, image: np.ndarray, first: int, rest: int) -> np.ndarray:
        """An image H x W x C -> the same after all steps, contiguous.

        first, rest: the interpolations of OpenCV, linear or nearest, for the first step and for those after it; the
        first may be any other, too, and is then carried out by itself. The nearest pixel of a warp is the one in which
        the point falls that the linear kind looks at: maps stay with photographs.
        """
        height, width, channels = image.shape
        if len(self.resampling) <= 1:
            image = self._one_by_one(image, first, rest)
        elif (self.resampling[0] == 0 and first != rest) or max(height, width) > _MOST_WARPED_PX:
            before, after = self._halves
            return after(before(image, first, rest), rest, rest)
        else:
            image = self._warp(image, rest)
        return np.ascontiguousarray(image.reshape(*image.shape[:2], channels))

    @cached_property
    def _halves(self) -> tuple[Moves, Moves]:
        at = self.resampling[0] + 1
        return Moves(self.steps[:at]), Moves(self.steps[at:])

    def _one_by_one(self, image: np.ndarray, first: int, rest: int) -> np.ndarray:
        """Steps of which at most one resamples."""
        steps = self.steps
        for at in self.resampling:
            image = np.ascontiguousarray(_shift(image, steps[:at]))
            resample = steps[at].resample
            assert resample is not None
            image, steps = resample(image, rest if at else first), steps[at + 1 :]
        return _shift(image, steps)

    def _warp(self, image: np.ndarray, interpolation: int) -> np.ndarray:
        """All steps at once. Beyond the border of the image is its last row or column again."""
        if self._maps is None:
            return _affine(image, _source(self.steps), self.steps[-1].after, interpolation)
        return cv2.remap(image, *self._maps, interpolation, borderMode=cv2.BORDER_REPLICATE)

    @cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Where the pixels of what comes out come from, if some do from beyond a border that reflects."""
        source = _IDENTITY
        for step in reversed(self.steps):
            source = _then(source, step.source)
            if step.reflects and not _is_inside(source, self.steps[-1].after, step.before):
                return _sources(self.steps)
        return None


def move_points(points: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Points ... x D, of which x and y come first, after all steps; what else there is of each stays. float32."""
    source = np.vstack([np.reshape(_source(steps), (2, 3)), [0, 0, 1]])
    matrix = np.linalg.inv(source)
    moved = points[..., :2] @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([moved, points[..., 2:]], axis=-1).astype(np.float32)


def move_vectors(vectors: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Differences of points, ... x 2, x first, after all steps; float32."""
    a, b, _, d, e, _ = _source(steps)
    return (vectors @ np.linalg.inv([[a, b], [d, e]]).T).astype(np.float32)


def find_mirrored(steps: Sequence[Step], size: Size) -> np.ndarray:
    """Which pixels of an image of `size`, made by the steps, come from beyond a border that reflects: H x W, bool."""
    x, y = np.arange(size[1])[None, :], np.arange(size[0])[:, None]
    found, source = np.zeros(size, bool), _IDENTITY
    for step in reversed(steps):
        source = _then(source, step.source)
        if step.reflects:
            (before_x, before_y), (height, width) = _at(source, x, y), step.before
            found |= (before_x < 0) | (before_y < 0) | (before_x > width - 1) | (before_y > height - 1)
    return found


def _source(steps: Sequence[Step]) -> Affine:
    """A point after all steps -> the same point before them."""
    source = _IDENTITY
    for step in reversed(steps):
        source = _then(source, step.source)
    return source


def _then(one: Affine, other: Affine) -> Affine:
    a, b, c, d, e, f = one
    g, h, i, j, k, m = other
    return g * a + h * d, g * b + h * e, g * c + h * f + i, j * a + k * d, j * b + k * e, j * c + k * f + m


def _at(affine: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d, e, f = affine
    return a * x + (b * y + c), d * x + (e * y + f)


def _shift(image: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Steps that move pixels as a whole, as one slice and one mirror, which OpenCV does much faster than numpy."""
    if not steps:
        return image
    a, b, left, d, e, top = map(int, _source(steps))
    bottom, right = steps[-1].after[0] - 1, steps[-1].after[1] - 1
    rows = sorted([top, top + d * right + e * bottom])
    columns = sorted([left, left + a * right + b * bottom])
    image = image[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
    if a == 0:
        image = image.swapaxes(0, 1)
    mirrors_x, mirrors_y = a + d < 0, b + e < 0
    if not (mirrors_x or mirrors_y):
        return image
    return cv2.flip(np.ascontiguousarray(image), -1 if mirrors_x and mirrors_y else int(mirrors_x))


def _affine(image: np.ndarray, source: Affine, size: Size, interpolation: int) -> np.ndarray:
    matrix, flags = np.reshape(source, (2, 3)).astype(np.float64), interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _is_inside(source: Affine, size: Size, before: Size) -> bool:
    """Whether all pixels of an image come from within the one before."""
    bottom, right = size[0] - 1, size[1] - 1
    x, y = _at(source, np.array([0, right, 0, right]), np.array([0, 0, bottom, bottom]))
    return min(x.min(), y.min()) >= 0 and x.max() <= before[1] - 1 and y.max() <= before[0] - 1


def _sources(steps: Sequence[Step]) -> tuple[np.ndarray, np.ndarray]:
    """x and y, H x W each, of where the pixels of what comes out come from, mirrored at borders that reflect."""
    height, width = steps[-1].after
    x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
    source = _IDENTITY
    for step in reversed(steps):
        source = _then(source, step.source)
        if step.reflects:
            x, y = _at(source, x, y)
            x, y, source = _reflect(x, step.before[1]), _reflect(y, step.before[0]), _IDENTITY
    return _at(source, x, y)


def _reflect(x: np.ndarray, length: int) -> np.ndarray:
    """Numbers folded into [0, length - 1], as often as it takes."""
    last = length - 1
    x = np.abs(x)
    if x.max() <= last:
        return x
    if x.max() > 2 * last:
        x = np.mod(x, 2 * last) if last else np.zeros_like(x)
    return last - np.abs(last - x)
