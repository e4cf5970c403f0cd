"""Optical flow: where what a pixel shows was in the frame before, and whether that is known.

The flow of frame t leads to frame t - 1: what is at p of frame t is at p + flow(p) of frame t - 1. So frame t - 1,
sampled at p + flow(p), is frame t: what video-to-video synthesis needs (Wang et al. 2018, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import cv2
import numpy as np
from torch import Tensor

from imagier.data import codec
from imagier.data.augmentation import warp
from imagier.data.augmentation.augment import Drawn
from imagier.data.augmentation.warp import Part, Size
from imagier.data.codec import Stored
from imagier.data.decoding.decode import EncodedFile, read_pixels
from imagier.errors import UserError

UNITS_PER_PX, LARGEST_PX = 64, 511.0
"""The precision of a file, and the longest movement along one axis that is stored."""

_ZERO = 1 << 15
_UNKNOWN_COLOR = np.array((48, 48, 52), np.uint8)


class Codec(codec.Codec):
    """PNGs of 3 x 16 bits in the form of KITTI (Geiger et al. 2013): x and y in 1/64 px plus 32768, and 1 where known.

    A batch holds the vectors under the name of the type, N x 2 x H x W, pixels to the right and pixels down, and
    <name>_confidence, N x 1 x H x W, 0 or 1; a label has all three channels. Vectors turn, shrink and grow with the
    image. Where the confidence is 0, they are 0: where nothing is known, and where an augmentation has cut off the
    place that they lead to.
    """

    num_channels = 3
    holds_ids = True
    can_normalize = False
    batch_parts: ClassVar[Mapping[str, int]] = {"": 2, "_confidence": 1}
    leads_to_previous = True

    def decode(self, file: EncodedFile) -> np.ndarray:
        """H x W x 3, uint16, as stored."""
        return read_pixels(file)

    def check(self, array: np.ndarray, where: str) -> None:
        """UserError unless it has three channels of 16 bits."""
        if array.dtype != np.uint16 or array.shape[2] != 3:
            raise UserError(
                f"holds {array.shape[2]} x {array.dtype}, but flow is stored in 3 x uint16",
                where=where,
                advice="make it with `imagier data build flow`, or save it as KITTI does",
                code="not-flow",
            )

    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """Moved and turned, each vector taken from one pixel, float32: at the edge of what moves, none is between."""
        flow = drawn.apply(unpack(stored.array), is_nearest=True, has_colors=False)
        flow[..., :2] = drawn.move_vectors(flow[..., :2], stored.size)
        flow[drawn.find_mirrored(stored.size)] = 0
        return _forget_outside(flow)

    def crop(self, array: np.ndarray, part: Part, size: Size) -> np.ndarray:
        """As the image, with its vectors as much longer."""
        flow = super().crop(array, part, size)
        vectors = warp.move_vectors(flow[..., :2], warp.enlarge(part, size))
        return _forget_outside(np.concatenate([vectors, flow[..., 2:]], axis=2))

    def expand(self, stored: Tensor) -> Tensor:
        """Vectors in pixels, and the confidence, N x ... x 3 x H x W."""
        return stored.movedim(-1, -3).float()

    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """The direction as a hue, the length as its strength, up to the longest; gray where nothing is known."""
        x, y, known = np.moveaxis(unpack(array) if array.dtype == np.uint16 else array, -1, 0)
        length = np.hypot(x, y)
        hue = np.rad2deg(np.arctan2(y, x)) % 360
        strength = length / max(float(length.max()), 1.0)
        hsv = np.stack([hue, strength, np.ones_like(hue)], axis=-1).astype(np.float32)
        colors = (cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).round().astype(np.uint8)
        return np.where(known[..., None] > 0, colors, _UNKNOWN_COLOR)


def _forget_outside(flow: np.ndarray) -> np.ndarray:
    """Flow H x W x 3 that is 0 where it was unknown, and where it leads out of the image."""
    height, width = flow.shape[:2]
    x, y = flow[..., 0] + np.arange(width), flow[..., 1] + np.arange(height)[:, None]
    is_inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return flow * (flow[..., 2:] * is_inside[..., None])


def encode_flow(vectors: np.ndarray, known: np.ndarray) -> bytes:
    """Vectors H x W x 2 in pixels, x first, and where they are known, H x W, bool -> the bytes of a PNG.

    Rounded to 1/64 px. Vectors that are longer than 511 px along an axis, or no numbers, become unknown.
    """
    with np.errstate(invalid="ignore"):
        known = known & (np.abs(vectors) <= LARGEST_PX).all(axis=2)
    units = np.where(known[..., None], vectors, 0) * UNITS_PER_PX
    stored = np.dstack([(units.round() + _ZERO) * known[..., None], known]).astype(np.uint16)
    done, png = cv2.imencode(".png", stored[..., ::-1])
    assert done
    return png.tobytes()


def unpack(stored: np.ndarray) -> np.ndarray:
    """H x W x 3 uint16 as stored -> float32: x and y in pixels, and the confidence, 0 or 1."""
    known = (stored[..., 2:] > 0).astype(np.float32)
    return np.concatenate([(stored[..., :2].astype(np.float32) - _ZERO) / UNITS_PER_PX * known, known], axis=2)
