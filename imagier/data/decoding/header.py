"""What an image file says of itself before its pixels are decoded: its size, its orientation, if it is animated.

Read by hand where it is nearly all files (JPEG, PNG), so that it costs next to nothing; else by Pillow.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

from PIL import Image

from imagier.errors import UserError

JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"

MOST_PIXELS = 178_956_970
"""Images of more are not decoded: a file of some kB can claim any size. (It is where Pillow sees a bomb.)"""

_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_PALETTE = 3
_HDR_SIZE = re.compile(rb"\n[-+]Y (\d+) [-+]X (\d+)\n")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is known of an image before its pixels."""

    height: int
    width: int
    """As stored, before it is turned as the orientation says."""
    orientation: int = 1
    """Of EXIF, 1 to 8: how to turn and mirror the stored image."""
    is_jpeg: bool = False
    gray_bits: int = 8
    """Of a gray PNG, per pixel."""
    has_palette: bool = False
    """PNG: it stores indices into a list of colors."""
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
        raise UserError("the file is empty", where=where, advice="restore it or remove it from the set")
    if data.startswith(JPEG_START):
        header = _of_jpeg(data)
    elif data.startswith(PNG_START):
        header = _of_png(data)
    else:
        header = _by_pillow(data, where)
    if header is None:
        return None
    if not header.is_whole:
        raise UserError("the file is cut off", where=where, advice="restore it or remove it from the set")
    if header.is_animated:
        raise UserError("is an animation", where=where, advice="save the image that is meant as a file of its own")
    if header.height * header.width > MOST_PIXELS:
        raise _giant(where, f"{header.height} x {header.width}")
    if header.height * header.width == 0:
        raise UserError(
            f"has no pixels ({header.height} x {header.width})", where=where, advice="remove it from the set"
        )
    return header


def _of_jpeg(data: bytes) -> Header | None:
    """None if no size is found: the decoder will tell what is wrong."""
    at, orientation, size = 2, 1, None
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"", bytes([_START_OF_SCAN])):
        marker = data[at + 1]
        if marker == 0xFF:  # any number of these may stand before a marker
            at += 1
            continue
        if marker in _START_OF_FRAME:
            size = _number(data, at + 5, 2), _number(data, at + 7, 2)
        elif marker == _APP1 and data.startswith(_EXIF, at + 4):
            orientation = _orientation(data[at + 10 : at + 2 + _number(data, at + 2, 2)])
        at += 2 + _number(data, at + 2, 2)
    # The end is looked for behind all of these, since a thumbnail in there has its own; from the back, where it is.
    is_whole = data.rfind(b"\xff\xd9", at) >= 0
    if size is None:
        return None if is_whole else Header(height=1, width=1, is_whole=False)
    return Header(height=size[0], width=size[1], orientation=orientation, is_jpeg=True, is_whole=is_whole)


def _of_png(data: bytes) -> Header:
    at, orientation, is_animated, name = len(PNG_START), 1, False, b""
    while name != b"IEND" and at + 12 <= len(data):
        length, name = _number(data, at, 4), data[at + 4 : at + 8]
        is_animated |= name == b"acTL"
        if name == b"eXIf":
            orientation = _orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
    is_whole = name == b"IEND"
    return Header(
        height=_number(data, 20, 4),
        width=_number(data, 16, 4),
        orientation=orientation,
        gray_bits=data[24] if is_whole and data[25] == 0 else 8,
        has_palette=is_whole and data[25] == _PALETTE,
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
    except (OSError, SyntaxError, ValueError, EOFError):
        return None  # OpenCV may know it, or tell what is wrong
    # A TIFF has none: all that read it turn it, and give the size that it then has.
    exif = b"" if image.format == "TIFF" else image.info.get("exif", b"").removeprefix(_EXIF)
    width, height = image.size
    return Header(height=height, width=width, orientation=_orientation(exif), is_animated=animated)


def _giant(where: str, pixels: str) -> UserError:
    return UserError(
        f"says that it has {pixels} pixels, and only images of up to {MOST_PIXELS} are read",
        where=where,
        advice="scale it down, or remove it from the set",
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
