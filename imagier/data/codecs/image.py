"""Images: light or other numbers between which there are others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, uint8

from imagier.data import codec
from imagier.data.augmentation.augment import Drawn
from imagier.data.codec import InputType, Remark, Stored, stretch
from imagier.data.decoding.decode import EncodedFile, read_pixels
from imagier.errors import UserError

SIXTEEN_BITS = Remark(
    "sixteen-bits",
    "of 16 bits, whose values are taken as they are, up to 65535, instead of from 0 to 1",
    "save images with 8 bits, or set is_mask: true if the values are ids",
)
WIDE_FLOATS = Remark(
    "wide-floats",
    "of floating-point values outside 0 to 1, which are taken as they are",
    "divide them by the largest value that there can be",
)

_LUMA = np.array([0.299, 0.587, 0.114])
"""Brightness of red, green and blue (BT.601)."""


class Codec(codec.Codec):
    """Of any number of channels; 8 bits become [0, 1] or, with `normalize`, [-1, 1].

    16-bit integers and floats are taken as they are, and a palette gives its colors. With a `background`, an image with
    alpha is laid on it where `num_channels` says 3 or 1.
    """

    reduces_jpeg = True

    def decode(self, file: EncodedFile) -> np.ndarray:
        """H x W x C, uint8, uint16 or float32 (TIFF, HDR), channels as red, green, blue, alpha."""
        array, background = read_pixels(file, self.input_type.num_channels), self.input_type.background
        if background is None or (array.shape[2], self.input_type.num_channels) not in ((2, 1), (4, 3)):
            return array
        return lay_on(background, array)

    def check(self, array: np.ndarray, where: str) -> None:
        """UserError if it has other channels than the config says, or values that no batch can hold."""
        check_pixels(array, self.input_type, where)

    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """Moved and recolored."""
        return drawn.apply(stored.array, stored.extent)

    def expand(self, stored: Tensor) -> Tensor:
        """Values in [0, 1], or [-1, 1] with `normalize`."""
        return scale_values(stored, self.input_type)

    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """8 bits as they are; other numbers from black to white."""
        return as_rgb(array if array.dtype == np.uint8 else stretch(array))

    def examine(self, array: np.ndarray) -> Sequence[Remark]:
        """Values that are in no usual range."""
        if array.dtype == np.uint16:
            return [SIXTEEN_BITS]
        is_wide = array.dtype == np.float32 and (array.min() < 0 or array.max() > 1)
        return [WIDE_FLOATS] if is_wide else []


def check_pixels(array: np.ndarray, input_type: InputType, where: str) -> None:
    """UserError if an array has other channels than the config says, or values that no batch can hold."""
    channels, wanted = array.shape[2], input_type.num_channels
    if wanted is not None and channels != wanted:
        has_alpha = (channels, wanted) in ((2, 1), (4, 3)) and not input_type.background
        lay = "; data.background: [255, 255, 255] lays images with alpha on white" if has_alpha else ""
        raise UserError(
            f"has {channels} channels, but input type {input_type.name!r} says num_channels: {wanted}",
            where=where,
            advice=f"convert the file or correct the config{lay}",
            code="wrong-channels",
        )
    if array.dtype not in (np.uint8, np.uint16, np.float32):
        raise UserError(
            f"holds {array.dtype} values",
            where=where,
            advice="convert it to 8 or 16 bits without sign, or to float32",
            code="wrong-dtype",
        )
    if array.dtype == np.uint16 and input_type.normalize:
        raise UserError(
            f"holds 16-bit values, whose range is not known, but input type {input_type.name!r} says normalize: true",
            where=where,
            advice="convert the file to 8 bits",
            code="wrong-range",
        )
    if array.dtype == np.float32 and not np.isfinite(array).all():
        count = array.size - int(np.count_nonzero(np.isfinite(array)))
        raise UserError(
            f"holds {count} {'value that is' if count == 1 else 'values that are'} infinite or no number (NaN)",
            where=where,
            advice="replace those values; a single one makes all losses NaN",
            code="not-finite",
        )


def scale_values(stored: Tensor, input_type: InputType) -> Tensor:
    """N x ... x H x W x C -> N x ... x C x H x W, float32: 8 bits in [0, 1], others as they are; normalized if wanted.

    16-bit images hold numbers (depths, instances), not light.
    """
    values = limit_values(stored, input_type).movedim(-1, -3).float() / (255 if stored.dtype == uint8 else 1)
    return (values - 0.5) / 0.5 if input_type.normalize else values


def limit_values(stored: Tensor, input_type: InputType) -> Tensor:
    """Makes values from `dont_care` on be it."""
    limit = input_type.dont_care
    if limit is None:
        return stored
    return stored.clamp(max=min(limit, 255) if stored.dtype == uint8 else limit)


def lay_on(background: Sequence[int] | np.ndarray, array: np.ndarray) -> np.ndarray:
    """Gray or red, green, blue, and alpha, H x W x 2 or 4 -> the image on a color (0 to 255), H x W x 1 or 3."""
    most = 1.0 if array.dtype == np.float32 else float(np.iinfo(array.dtype).max)
    color = np.array(background, np.float64) * (most / 255)
    color = color if array.shape[2] == 4 else color @ _LUMA
    alpha = array[..., -1:] / most
    laid = array[..., :-1] * alpha + color * (1 - alpha)
    return (laid if array.dtype == np.float32 else laid.round()).astype(array.dtype)


def as_rgb(array: np.ndarray) -> np.ndarray:
    """8 bits H x W x C -> H x W x 3: gray, with alpha on white; of other numbers of channels the first three."""
    if array.shape[2] in (2, 4):
        array = lay_on((255, 255, 255), array)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[..., :3])
