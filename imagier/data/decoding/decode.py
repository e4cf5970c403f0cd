"""From the bytes of an image file to its pixels, by OpenCV, whatever format it has."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

from imagier.data.augmentation.warp import Size
from imagier.data.decoding.header import Header, read_header
from imagier.data.sources.source import Source
from imagier.errors import UserError

JPEG_EXTENSIONS = frozenset({"jpg", "jpeg"})

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: cv2.flip(x, 1),
    3: lambda x: cv2.flip(x, -1),
    4: lambda x: cv2.flip(x, 0),
    5: cv2.transpose,
    6: lambda x: cv2.rotate(x, cv2.ROTATE_90_CLOCKWISE),
    7: lambda x: cv2.transpose(cv2.flip(x, -1)),
    8: lambda x: cv2.rotate(x, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""How to show a stored image, by the orientation of EXIF."""


@dataclass
class EncodedFile:
    """A file of a sample that is not decoded yet."""

    data: bytes
    ext: str
    """In lower case, without a dot. What the file is, its first bytes say."""
    where: str
    """What to call it in a message."""
    reduction: int = 1
    """1, 2, 4 or 8: a JPEG may be decoded to sides that are so much smaller, rounded up."""

    @classmethod
    def read(cls, source: Source, input_type: str, key: str) -> EncodedFile:
        """A file of a source. UserError if it is not there, or empty: no codec needs to expect that."""
        where, data = source.where(input_type, key), source.read(input_type, key)
        if not data:
            advice = "restore it or remove it from the set"
            raise UserError("the file is empty", where=where, advice=advice, code="empty-file")
        return cls(data, source.extension(input_type), where)

    @cached_property
    def header(self) -> Header | None:
        """What an image says of itself; None for other formats. UserError if it should not be decoded."""
        return read_header(self.data, self.where)

    @property
    def size(self) -> Size:
        """Height and width of an image with a header, upright."""
        assert self.header is not None
        return self.header.size

    @property
    def is_jpeg(self) -> bool:
        """Whether it is a JPEG and is called one."""
        return self.header is not None and self.header.is_jpeg and self.ext in JPEG_EXTENSIONS


def read_pixels(file: EncodedFile, *, has_palette_indices: bool = False, has_raw_gray: bool = False) -> np.ndarray:
    """A file -> H x W x C, upright, of whatever type of numbers it holds; red, green, blue, alpha.

    JPEG always gives three channels of 8 bits, whatever is stored. A JPEG called .png can be read. has_palette_indices:
    give the indices of a PNG with a palette, not the colors. has_raw_gray: give the stored numbers of a gray PNG of 1,
    2 or 4 bits, which are otherwise scaled to 255. UserError, with the file's name, if it is damaged.
    """
    data, header, where = file.data, file.header, file.where
    is_color = file.ext in JPEG_EXTENSIONS or file.reduction > 1
    if header is not None and header.has_palette and has_palette_indices:
        array = _palette_indices(data, where)
    else:
        array = _by_opencv(data, _REDUCED[file.reduction] if is_color else cv2.IMREAD_UNCHANGED, where)
    if header is not None and header.gray_bits < 8 and has_raw_gray and array.dtype == np.uint8:
        array = array // (255 // (2**header.gray_bits - 1))
    if header is not None and header.orientation != 1:
        array = _UPRIGHT[header.orientation](array)
    return array[..., None] if array.ndim == 2 else array


def choose_reduction(header: Header, needed: tuple[int, int]) -> int:
    """The largest of 8, 4, 2 and 1 by which both sides can be divided and are still as large as needed.

    An image that is turned must have sides that are multiples of it: else what is missing of a last row and column
    would be missing of the first.
    """
    height, width = header.size
    fits = (k for k in (8, 4, 2) if height >= k * needed[0] and width >= k * needed[1])
    return next((k for k in fits if header.orientation == 1 or height % k == width % k == 0), 1)


def _palette_indices(data: bytes, where: str) -> np.ndarray:
    try:
        return np.asarray(Image.open(io.BytesIO(data)))
    except (OSError, SyntaxError) as error:  # Pillow raises either for damaged chunks
        raise UserError(
            f"damaged ({error})", where=where, advice="restore it or remove it from the set", code="damaged"
        ) from error


def _by_opencv(data: bytes, mode: int, where: str) -> np.ndarray:
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise UserError(f"cannot be decoded ({error.err})", where=where, code="damaged") from error
    if array is None:
        raise UserError(
            "not an image, or damaged", where=where, advice="restore it or remove it from the set", code="damaged"
        )
    if array.ndim == 3 and array.shape[2] == 3:
        return cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
    if array.ndim == 3 and array.shape[2] == 4:
        return cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA)
    return array
