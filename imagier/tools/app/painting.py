"""What people paint, in colors, as what data sets store: maps of class ids and gray images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imagier.data.augmentation.warp import Size
from imagier.data.codecs.class_map import NOTHING_COLOR
from imagier.data.codecs.mask import NOTHING
from imagier.nn.colorize import palette

SIDE = 512
"""Pixels that the longer side of a board has at least, so that a hand can hit those of a small image."""

_TOLERANCE = 3
"""By how much a browser may change a color that is painted opaque, of 255."""

_APART = 2 * _TOLERANCE + 2
"""By how much colors of two classes differ at least, in one of the channels."""

_NUDGE = np.array([11, 23, 37])


@dataclass(frozen=True)
class Board:
    """What is painted on: an image of a size, each of whose pixels is a square of `scale` x `scale`."""

    size: Size

    @property
    def scale(self) -> int:
        """Sides of a pixel of the image on the board."""
        return -(-SIDE // max(self.size)) if max(self.size) < SIDE else 1

    @property
    def shape(self) -> Size:
        """Height and width of the board."""
        return self.size[0] * self.scale, self.size[1] * self.scale

    def enlarge(self, image: np.ndarray) -> np.ndarray:
        """An image of its size, H x W x ..., on the board."""
        return image.repeat(self.scale, axis=0).repeat(self.scale, axis=1)

    def reduce_ids(self, ids: np.ndarray) -> np.ndarray:
        """H x W from the board -> those in the middle of each square; of another shape as they are."""
        middle = self.scale // 2
        return ids[middle :: self.scale, middle :: self.scale] if ids.shape == self.shape else ids

    def reduce_grays(self, grays: np.ndarray) -> np.ndarray:
        """H x W, uint8, from the board -> the mean of each square; of another shape as they are."""
        if grays.shape != self.shape:
            return grays
        squares = grays.reshape(self.size[0], self.scale, self.size[1], self.scale)
        return squares.mean(axis=(1, 3)).round().astype(np.uint8)


class ClassColors:
    """The colors that stand for classes, each another one, and for no class."""

    def __init__(self, num_classes: int) -> None:
        self.ids = np.array([*range(num_classes), *([NOTHING] if num_classes <= NOTHING else [])], np.uint16)
        """The class of each color; the last is NOTHING, if that is no class itself."""
        wanted = [*palette(num_classes).numpy(), np.array(NOTHING_COLOR)][: len(self.ids)]
        self.colors = _tell_apart(wanted)
        """K x 3, uint8, one for each of `ids`."""

    def to_colors(self, ids: np.ndarray) -> np.ndarray:
        """H x W -> H x W x 3, uint8. What is no class becomes NOTHING."""
        last = len(self.ids) - 1
        return self.colors[np.where(ids < last, ids, last)]

    def to_ids(self, painted: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """What is painted, H x W x 3, uint8 -> ids, H x W, uint8 or uint16.

        Edges of strokes are smooth: their mixed colors become the class of the nearest pixel that has a color of a
        class, and lies in an area of at least 2 x 2 pixels of it. before: the colors that were painted on; pixels that
        have not changed need no such area.
        """
        from scipy.ndimage import distance_transform_edt

        numbers, is_plain = self._find_nearest(painted)
        is_sure = is_plain & _lies_in_area(numbers)
        if before is not None and before.shape == painted.shape:
            is_sure |= is_plain & (before == painted).all(axis=2)
        if is_sure.any() and not is_sure.all():
            rows, columns = distance_transform_edt(~is_sure, return_distances=False, return_indices=True)
            numbers = numbers[rows, columns]
        ids = self.ids[numbers]
        return ids.astype(np.uint8) if len(self.ids) <= 256 else ids

    def _find_nearest(self, painted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of the nearest color of each pixel, and whether it is that one."""
        from scipy.spatial import cKDTree

        codes = painted.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        distinct, where = np.unique(codes, return_inverse=True)
        rgb = np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=1)
        distances, numbers = cKDTree(self.colors.astype(float)).query(rgb.astype(float), p=np.inf)
        where = where.reshape(painted.shape[:2])
        return numbers[where], (distances <= _TOLERANCE)[where]


def to_grays(painted: np.ndarray) -> np.ndarray:
    """H x W x 3, uint8 -> H x W, uint8: their brightness (BT.601), where gray stays what it is."""
    return (painted @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)


def find_blank(grays: np.ndarray) -> int:
    """The most common value of a gray image, uint8: that of its paper."""
    return int(np.bincount(grays.ravel(), minlength=256).argmax())


def to_hex(color: np.ndarray) -> str:
    """Red, green, blue -> "#rrggbb"."""
    return "#" + "".join(f"{int(value):02x}" for value in color)


def _tell_apart(wanted: list[np.ndarray]) -> np.ndarray:
    """The colors, K x 3, uint8; one that is as good as an earlier one is changed."""
    colors = np.zeros((len(wanted), 3), np.int64)
    for number, color in enumerate(wanted):
        color = color.astype(np.int64)
        while number and np.abs(colors[:number] - color).max(axis=1).min() < _APART:
            color = (color + _NUDGE) % 256
        colors[number] = color
    return colors.astype(np.uint8)


def _lies_in_area(numbers: np.ndarray) -> np.ndarray:
    """H x W -> whether each pixel belongs to 2 x 2 pixels of its number."""
    first = numbers[:-1, :-1]
    same = (first == numbers[1:, :-1]) & (first == numbers[:-1, 1:]) & (first == numbers[1:, 1:])
    found = np.zeros(numbers.shape, bool)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            found[rows, columns] |= same
    return found
