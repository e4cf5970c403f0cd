"""Which point of the world each pixel shows, for world-consistent video-to-video synthesis (Mallya et al. 2020)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from imagier.data import codec
from imagier.data.augmentation.augment import Drawn
from imagier.data.codec import InputType, Remark, Stored
from imagier.data.decoding.decode import EncodedFile, read_pixels
from imagier.errors import UserError
from imagier.ranges import Positive

LARGEST = (1 << 48) - 1
"""The largest number of a point."""

_DIGIT = 16


class Codec(codec.Codec):
    """PNGs of 3 x 16 bits: three coordinates of the point of the world in each pixel; 0, 0, 0 where it is not known.

    Pixels with the same three show the same point, in whatever frame. Networks see N x 1 x H x W, int64: the number of
    the point, made of all three; 0: not known. Points move with the pixels, each taken from one.
    """

    num_channels = 3
    holds_ids = True
    can_normalize = False

    def __init__(self, input_type: InputType, *, cell: Positive = 1) -> None:
        """cell: Side of the cells of the world that count as one point, in the unit of the coordinates; 1: each triple
        is a point of its own.
        """
        super().__init__(input_type)
        self.cell = cell

    @property
    def channels(self) -> int:
        """Of what networks see."""
        return 1

    def decode(self, file: EncodedFile) -> np.ndarray:
        """H x W x 3, uint16, as stored."""
        return read_pixels(file)

    def check(self, array: np.ndarray, where: str) -> None:
        """UserError unless it has three channels of 16 bits."""
        if array.dtype != np.uint16 or array.shape[2] != 3:
            raise UserError(
                f"holds {array.shape[2]} x {array.dtype}, but points are stored in 3 x uint16",
                where=where,
                advice="make it with `imagier data build unprojections`, or see docs/data.md",
                code="not-points",
            )

    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """Moved, each point taken from one pixel; none beyond the border of the image."""
        points = drawn.apply(stored.array, is_nearest=True, has_colors=False)
        points[drawn.find_mirrored(stored.size)] = 0
        return points

    def expand(self, stored: Tensor) -> Tensor:
        """Numbers of points."""
        x, y, z = (stored.long() // self.cell).unbind(-1)
        numbers = (((x << _DIGIT) | y) << _DIGIT | z) + 1
        return torch.where((stored != 0).any(dim=-1), numbers, 0)[..., None, :, :]

    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """A color for each point, which it has in all frames; black where none is known."""
        mixed = (array // self.cell).astype(np.uint32) * np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint32)
        mixed = np.bitwise_xor.reduce(mixed, axis=2)
        colors = np.stack([mixed >> shift & 255 for shift in (24, 16, 8)], axis=2).astype(np.uint8)
        return np.where((array != 0).any(axis=2, keepdims=True), colors, 0).astype(np.uint8)

    def examine(self, array: np.ndarray) -> list[Remark]:
        """Says that no point is known."""
        if array.any():
            return []
        advice = "check how they were made: such frames are not guided"
        return [Remark("no-points", "know no point of the world", advice)]


def encode_points(numbers: np.ndarray) -> bytes:
    """Numbers of points H x W, int64, from 1 to 2^48 - 1, or 0 where none is known -> the bytes of a PNG."""
    digits = np.stack([numbers >> shift & 0xFFFF for shift in (2 * _DIGIT, _DIGIT, 0)], axis=2).astype(np.uint16)
    done, png = cv2.imencode(".png", digits[..., ::-1])
    assert done
    return png.tobytes()
