"""What an image file says of itself before its pixels are decoded: its size, its orientation, if it is animated.

Read by hand where it is nearly all files (JPEG, PNG), so that it costs next to nothing; else by Pillow.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass

from PIL import Image

from imagier.data.decoding.tiff import read_tiff
from imagier.errors import UserError

JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"

MOST_PIXELS = 178_956_970
"""Images of more are not decoded: a file of some kB can claim any size. (It is where Pillow sees a bomb.)"""

_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_PALETTE, _GRAY_ALPHA, _PNG_HEADER_BYTES = 3, 4, 33
_MOST_CHANNELS, _MOST_LIKELY = 4, 512
"""Channels of files that are read; and beyond these, of a TIFF that is not just damaged."""
_WHITE_IS_ZERO = 0
_HDR_SIZE = re.compile(rb"\n[-+]Y (\d+) [-+]X (\d+)\n")


DAMAGED_FOR_PILLOW = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(MemoryError, RuntimeError, NotImplementedError, AssertionError, struct.error, zlib.error),
)
"""What Pillow raises for files that are damaged, or made to do harm."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is known of an image before its pixels."""

    height: int
    width: int
    """As stored, before it is turned as the orientation says."""
    orientation: int = 1
    """Of EXIF, 1 to 8: how to turn and mirror the stored image."""
    is_jpeg: bool = False
    components: int = 3
    """Of a JPEG: 1 if it is gray."""
    gray_bits: int = 8
    """Of a gray image of 1 to 8 bits, per pixel."""
    has_palette: bool = False
    """It stores indices into a list of colors."""
    has_gray_alpha: bool = False
    """It stores gray and alpha, for which OpenCV gives four channels, or one."""
    is_webp: bool = False
    """It has colors even if it is gray: the format has nothing else."""
    is_inverted: bool = False
    """Gray whose 0 is white."""
    is_for_pillow: bool = False
    """OpenCV cannot read it, or gives other pixels than it holds."""
    is_premultiplied: bool = False
    """Its colors were multiplied by its alpha."""
    is_cmyk: bool = False
    """A TIFF of inks. (JPEGs of inks are read as colors.)"""
    is_animated: bool = False
    is_whole: bool = True
    """False if its end is missing. Some decoders fill what is missing with gray and say nothing."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as the image is shown."""
        return (self.height, self.width) if self.orientation < 5 else (self.width, self.height)


def read_header(data: bytes, where: str) -> Header | None:
    """What the first bytes of a file say, whatever its name; None if they are of no format that is known here.

    UserError, with the file's name, for what should not be decoded: nothing, a part of a file, an animation, an image
    without pixels or with too many.
    """
    if not data:
        advice = "restore it or remove it from the set"
        raise UserError("the file is empty", where=where, advice=advice, code="empty-file")
    if data.startswith(JPEG_START):
        header = _of_jpeg(data)
    elif data.startswith(PNG_START):
        header = _of_png(data)
    else:
        _refuse_tiff(data, where)
        header = _by_pillow(data, where)
    if header is None:
        return None
    if not header.is_whole:
        advice = "restore it or remove it from the set"
        raise UserError("the file is cut off", where=where, advice=advice, code="damaged")
    if header.is_animated:
        advice = "save the image that is meant as a file of its own"
        raise UserError("is an animation", where=where, advice=advice, code="animation")
    if header.height * header.width > MOST_PIXELS:
        raise _giant(where, f"{header.height} x {header.width}")
    if header.height * header.width == 0:
        raise UserError(
            f"has no pixels ({header.height} x {header.width})",
            where=where,
            advice="remove it from the set",
            code="no-pixels",
        )
    return header


def _of_jpeg(data: bytes) -> Header | None:
    """None if no size is found: the decoder will tell what is wrong."""
    at, orientation, components, size = 2, 1, 3, None
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"", bytes([_START_OF_SCAN])):
        marker = data[at + 1]
        if marker == 0xFF:  # any number of these may stand before a marker
            at += 1
            continue
        if marker in _START_OF_FRAME:
            size, components = (_number(data, at + 5, 2), _number(data, at + 7, 2)), _number(data, at + 9, 1)
        elif marker == _APP1 and data.startswith(_EXIF, at + 4):
            orientation = _orientation(data[at + 10 : at + 2 + _number(data, at + 2, 2)])
        at += 2 + _number(data, at + 2, 2)
    # The end is looked for behind all of these, since a thumbnail in there has its own; from the back, where it is.
    is_whole = data.rfind(b"\xff\xd9", at) >= 0
    if size is None:
        return None if is_whole else Header(height=1, width=1, is_whole=False)
    return Header(
        height=size[0],
        width=size[1],
        orientation=orientation,
        is_jpeg=True,
        components=components,
        is_whole=is_whole,
    )


def _of_png(data: bytes) -> Header | None:
    """None if it does not begin with a header: the decoder will tell what is wrong."""
    at, orientation, is_animated, name = len(PNG_START), 1, False, b""
    while name != b"IEND" and at + 12 <= len(data):
        length, name = _number(data, at, 4), data[at + 4 : at + 8]
        is_animated |= name == b"acTL"
        if name == b"eXIf":
            orientation = _orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
    is_whole = name == b"IEND"
    if is_whole and (data[12:16] != b"IHDR" or len(data) < _PNG_HEADER_BYTES):
        return None
    return Header(
        height=_number(data, 20, 4),
        width=_number(data, 16, 4),
        orientation=orientation,
        gray_bits=data[24] if is_whole and data[25] == 0 else 8,
        has_palette=is_whole and data[25] == _PALETTE,
        has_gray_alpha=is_whole and data[25] == _GRAY_ALPHA,
        is_animated=is_animated,
        is_whole=is_whole,
    )


def _by_pillow(data: bytes, where: str) -> Header | None:
    radiance = _HDR_SIZE.search(data[:4096]) if data.startswith(b"#?") else None
    if radiance:
        return Header(height=int(radiance[1]), width=int(radiance[2]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of giants and of damage: both are told here, or by the decoder
            image = Image.open(io.BytesIO(data))
        animated = image.format in ("GIF", "WEBP") and getattr(image, "is_animated", False)
    except Image.DecompressionBombError as error:
        raise _giant(where, f"more than {MOST_PIXELS}") from error
    except DAMAGED_FOR_PILLOW:
        return None  # OpenCV may know it, or tell what is wrong
    width, height = image.size
    if image.format == "TIFF":
        return _of_tiff(data, height, width)
    exif = image.info.get("exif", b"").removeprefix(_EXIF)
    return Header(
        height=height,
        width=width,
        orientation=_orientation(exif),
        is_animated=animated,
        gray_bits=1 if image.mode == "1" else 8,
        has_palette=image.format == "GIF" or image.mode == "P",
        is_webp=image.format == "WEBP",
    )


def _of_tiff(data: bytes, height: int, width: int) -> Header | None:
    """No orientation: all that read a TIFF turn it, and give the size that it then has."""
    tiff = read_tiff(data)
    if tiff is None:
        return Header(height=height, width=width)
    is_small = tiff.bits < 8
    return Header(
        height=height,
        width=width,
        gray_bits=tiff.bits if is_small and tiff.is_gray and tiff.samples == 1 else 8,
        has_palette=tiff.has_palette,
        has_gray_alpha=tiff.is_gray and tiff.has_alpha,
        is_inverted=tiff.photometric == _WHITE_IS_ZERO,
        is_for_pillow=is_small or tiff.has_palette or (tiff.bits == 8 and tiff.has_alpha),
        is_premultiplied=tiff.has_alpha and tiff.extra == 1 and tiff.bits > 8,
        is_cmyk=tiff.is_cmyk,
    )


def _refuse_tiff(data: bytes, where: str) -> None:
    """UserError for a TIFF of which only a part would be read."""
    tiff = read_tiff(data)
    if tiff is not None and tiff.pages > 1:
        raise UserError(
            f"holds {tiff.pages} pages, and an image is one",
            where=where,
            advice="save each page as a file of its own (tiffsplit), or the one that is meant",
            code="several-pages",
        )
    if tiff is not None and _MOST_CHANNELS < tiff.samples <= _MOST_LIKELY:
        raise UserError(
            f"has {tiff.samples} channels, and files of up to {_MOST_CHANNELS} are read",
            where=where,
            advice="save it as files of fewer channels, an input type each, or read it with a codec of your own",
            code="wrong-channels",
        )


def _giant(where: str, pixels: str) -> UserError:
    return UserError(
        f"says that it has {pixels} pixels, and only images of up to {MOST_PIXELS} are read",
        where=where,
        advice="scale it down, or remove it from the set",
        code="too-many-pixels",
    )


def _orientation(exif: bytes) -> int:
    """The orientation in a block of EXIF, which is laid out as a TIFF file is; 1, as it is stored, if there is none."""
    if exif[:2] not in (b"II", b"MM"):
        return 1

    def number(at: int, length: int) -> int:
        return int.from_bytes(exif[at : at + length], "little" if exif[:2] == b"II" else "big")

    first = number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * min(number(first, 2), 1000), 12):
        if number(entry, 2) == _ORIENTATION:
            return number(entry + 8, 2) if 1 <= number(entry + 8, 2) <= 8 else 1
    return 1


def _number(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big")
