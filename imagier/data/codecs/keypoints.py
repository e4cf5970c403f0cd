"""Key points: a JSON list of points in the pixels of an image, which move as the pixels do."""

from __future__ import annotations

import json

import cv2
import numpy as np
from torch import Tensor

from imagier.data import codec
from imagier.data.augmentation import warp
from imagier.data.augmentation.augment import Drawn
from imagier.data.augmentation.warp import Part, Size
from imagier.data.codec import Stored
from imagier.data.decoding.decode import EncodedFile
from imagier.errors import UserError

POINT_COLOR = (0, 200, 60)

_WANTED = "a JSON list of key points [x, y, ...], all of one length"

_MOST_PX = 1e6
"""Farther away from an image no point is drawn; OpenCV would overflow."""


class Codec(codec.Codec):
    """P x D numbers: x, y, and whatever else there is of each point (a confidence). The center of a pixel is whole.

    In a batch they are N x P x D, float32, in the pixels of the augmented image; those that have left it, too.
    """

    has_pixels = False

    @property
    def channels(self) -> None:
        """None: they make up no label."""
        return None

    def decode(self, file: EncodedFile) -> np.ndarray:
        """A JSON list of [x, y, ...], all of one length -> P x D, float64. UserError for any other content."""
        return read_points(file)

    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """Moved as the pixels of the image of `stored.size`, float32."""
        return drawn.move_points(stored.array, stored.size)

    def crop(self, array: np.ndarray, part: Part, size: Size) -> np.ndarray:
        """Moved as the pixels."""
        return warp.move_points(array, warp.enlarge(part, size))

    def expand(self, stored: Tensor) -> Tensor:
        """As they are."""
        return stored

    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """Dots on the image; those outside of it cannot be seen."""
        assert canvas is not None
        return draw_dots(array, canvas)


def read_points(file: EncodedFile) -> np.ndarray:
    """A JSON list of [x, y, ...], all of one length -> P x D, float64. UserError for any other content."""
    try:
        points = np.array(json.loads(file.data), np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise wrong_content(file, _WANTED, describe_error(error)) from error
    if points.ndim != 2 or points.shape[1] < 2:
        raise wrong_content(file, _WANTED, f"its numbers have the shape {list(points.shape)}")
    check_finite(points, file)
    return points


def check_finite(points: np.ndarray, file: EncodedFile) -> None:
    """UserError if the numbers of a file are none, or infinite as float32."""
    if not (np.abs(points) <= np.finfo(np.float32).max).all():
        raise UserError(
            "holds numbers that are infinite or none",
            where=file.where,
            advice="give such points a confidence of 0 instead",
            code="not-finite",
        )


def wrong_content(file: EncodedFile, wanted: str, why: str) -> UserError:
    """The error for a file that holds something else than was wanted."""
    return UserError(f"not {wanted} ({why})", where=file.where, advice="correct it", code="damaged")


def describe_error(error: Exception) -> str:
    """The first line of an error, or its type."""
    return str(error).partition("\n")[0] or type(error).__name__


def draw_dots(points: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """Points P x D, x and y first, as dots on a copy of an image H x W x 3, uint8."""
    image = canvas.copy()
    radius = max(1, round(max(image.shape[:2]) / 80))
    for x, y in points[:, :2].clip(-_MOST_PX, _MOST_PX).round().astype(int).tolist():
        cv2.circle(image, (x, y), radius, POINT_COLOR, cv2.FILLED)
    return image
