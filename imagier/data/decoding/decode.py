"""From the bytes of an image file to its pixels, by OpenCV, whatever format it has."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from imagier.data.augmentation.warp import Size
from imagier.data.decoding.header import DAMAGED_FOR_PILLOW, Header, read_header
from imagier.data.sources.source import Source
from imagier.errors import UserError

JPEG_EXTENSIONS = frozenset({"jpg", "jpeg"})

_COLOR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_GRAY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""How to read a JPEG, by its reduction."""

_RESTORE = "restore it or remove it from the set"

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
    person: int = 0
    """Which one is meant, where a file shows several people."""

    @classmethod
    def read(cls, source: Source, input_type: str, key: str) -> EncodedFile:
        """A file of a source. UserError if it is not there, or empty: no codec needs to expect that."""
        where, data = source.where(input_type, key), source.read(input_type, key)
        if not data:
            raise UserError("the file is empty", where=where, advice=_RESTORE, code="empty-file")
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


def read_pixels(
    file: EncodedFile, num_channels: int | None = None, *, holds_ids: bool = False, has_raw_gray: bool = False
) -> np.ndarray:
    """A file -> H x W x C, upright, of whatever type of numbers it holds; red, green, blue, alpha.

    num_channels: what is wanted; None: any. It decides what formats leave open: whether a gray JPEG, a palette or a
    WebP of grays is one channel or three equal ones. A file that has other channels keeps them. holds_ids: where one
    channel is wanted, give the indices of a palette, not its colors.
    has_raw_gray: give the stored numbers of a gray image, also where 0 is white, and of 1, 2 or 4 bits, which are
    otherwise scaled to 255.

    A JPEG called .png can be read. UserError, with the file's name, if it is damaged.
    """
    header, where = file.header, file.where
    if header is None:
        array = _by_opencv(file.data, cv2.IMREAD_UNCHANGED, where)
    elif header.has_palette and holds_ids and num_channels == 1:
        array = _palette_indices(file.data, where)
    elif header.is_jpeg:
        is_gray = num_channels == 1 and header.components == 1
        array = _by_opencv(file.data, (_GRAY if is_gray else _COLOR)[file.reduction], where)
    elif header.is_for_pillow:
        array = _by_pillow(file.data, where)
    else:
        array = _by_opencv(file.data, cv2.IMREAD_UNCHANGED, where)
    if header is not None and has_raw_gray and array.ndim == 2 and array.dtype == np.uint8:
        # Of 16 bits OpenCV gives the stored numbers in any case.
        array = (255 - array if header.is_inverted else array) // (255 // (2**header.gray_bits - 1))
    if header is not None and header.orientation != 1:
        array = _UPRIGHT[header.orientation](array)
    array = array[..., None] if array.ndim == 2 else array
    return array if header is None else _fit_channels(array, header, file.ext, num_channels)


def choose_reduction(header: Header, needed: tuple[int, int]) -> int:
    """The largest of 8, 4, 2 and 1 by which both sides can be divided and are still as large as needed.

    An image that is turned must have sides that are multiples of it: else what is missing of a last row and column
    would be missing of the first.
    """
    height, width = header.size
    fits = (k for k in (8, 4, 2) if height >= k * needed[0] and width >= k * needed[1])
    return next((k for k in fits if header.orientation == 1 or height % k == width % k == 0), 1)


def _fit_channels(array: np.ndarray, header: Header, ext: str, wanted: int | None) -> np.ndarray:
    """Channels that a format stores in a form that says nothing about the image."""
    channels = array.shape[2]
    if header.is_premultiplied and channels in (2, 4):
        array = _divide_by_alpha(array)
    if header.is_cmyk and channels == 4:
        return np.ascontiguousarray(array[..., :3])
    if header.has_gray_alpha and channels == 4 and wanted not in (3, 4):
        return np.ascontiguousarray(array[..., [0, 3]])
    has_free_form = header.is_jpeg or header.has_palette or header.is_webp
    if wanted == 1 and channels == 3 and has_free_form and (array == array[..., :1]).all():
        return np.ascontiguousarray(array[..., :1])
    is_called_jpeg = ext in JPEG_EXTENSIONS and array.dtype == np.uint8
    if wanted == 3 and channels == 1 and (header.has_palette or is_called_jpeg):
        return np.repeat(array, 3, axis=2)
    return array


def _divide_by_alpha(array: np.ndarray) -> np.ndarray:
    """Colors that were multiplied by their alpha, the last channel -> as they were; black where that is 0."""
    most = 1 if array.dtype == np.float32 else np.iinfo(array.dtype).max
    alpha = array[..., -1:].astype(np.float64)
    colors = np.where(alpha > 0, array[..., :-1] * (most / np.maximum(alpha, 1e-9)), 0)
    colors = colors if array.dtype == np.float32 else colors.round().clip(0, most)
    return np.concatenate([colors.astype(array.dtype), array[..., -1:]], axis=2)


def _palette_indices(data: bytes, where: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            indices = np.asarray(Image.open(io.BytesIO(data)))
    except DAMAGED_FOR_PILLOW as error:
        raise _damaged(error, where) from error
    return indices.astype(np.uint8) if indices.dtype == bool else indices


def _by_pillow(data: bytes, where: str) -> np.ndarray:
    """Light of 8 bits, H x W or H x W x C; premultiplied colors as they were before."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            mode = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
            return np.asarray(image.convert(mode))
    except DAMAGED_FOR_PILLOW as error:
        raise _damaged(error, where) from error


def _damaged(error: Exception, where: str) -> UserError:
    if isinstance(error, UnidentifiedImageError):
        return UserError("not an image, or damaged", where=where, advice=_RESTORE, code="damaged")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"damaged ({reason})", where=where, advice=_RESTORE, code="damaged")


def _by_opencv(data: bytes, mode: int, where: str) -> np.ndarray:
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong, the one line says
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        reason = " ".join(error.err.split())
        raise UserError(f"cannot be decoded ({reason})", where=where, advice=_RESTORE, code="damaged") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if array is None:
        raise UserError("not an image, or damaged", where=where, advice=_RESTORE, code="damaged")
    if array.ndim == 3 and array.shape[2] == 3:
        return cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
    if array.ndim == 3 and array.shape[2] == 4:
        return cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA)
    return array
