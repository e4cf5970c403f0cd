"""TIFFs for tests, laid out by hand: also those that no library here writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _OFFSETS, _SAMPLES = 256, 257, 258, 262, 273, 277
_ROWS, _COUNTS, _PALETTE, _EXTRA, _SUBFILE = 278, 279, 320, 338, 254
_COMPRESSION = 259


def tiff(
    image: np.ndarray,
    *,
    bits: int = 8,
    photometric: int = 1,
    extra: int | None = None,
    palette: Sequence[int] | None = None,
    subfiles: Sequence[int] = (0,),
) -> bytes:
    """An uncompressed TIFF of an image H x W x C; a page for each entry of `subfiles`, all of the same pixels.

    bits: of a sample. photometric: 0 white is 0, 1 black is 0, 2 RGB, 3 palette. extra: of the last sample: 0 unknown,
    1 alpha that colors were multiplied by, 2 plain alpha. palette: all reds, greens, blues, of 16 bits.
    """
    height, width, samples = image.shape
    pixels = b"".join(_pack(row.ravel(), bits) for row in image)
    body = pixels + bytes(len(pixels) % 2)
    file = b"II*\0" + struct.pack("<I", 8 + len(body)) + body
    for number, subfile in enumerate(subfiles):
        fields = {
            _SUBFILE: ("I", [subfile]),
            _WIDTH: ("H", [width]),
            _HEIGHT: ("H", [height]),
            _BITS: ("H", [bits] * samples),
            _COMPRESSION: ("H", [1]),
            _PHOTOMETRIC: ("H", [photometric]),
            _OFFSETS: ("I", [8]),
            _SAMPLES: ("H", [samples]),
            _ROWS: ("H", [height]),
            _COUNTS: ("I", [len(pixels)]),
        }
        if palette is not None:
            fields[_PALETTE] = ("H", list(palette))
        if extra is not None:
            fields[_EXTRA] = ("H", [extra])
        file += _page(len(file), fields, is_last=number == len(subfiles) - 1)
    return file


def _page(at: int, fields: dict[int, tuple[str, list[int]]], *, is_last: bool) -> bytes:
    start = at + 2 + 12 * len(fields) + 4
    entries, outside = b"", b""
    for tag, (letter, values) in sorted(fields.items()):
        raw = struct.pack(f"<{len(values)}{letter}", *values)
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[letter], len(values))
        entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(outside))
        outside += raw if len(raw) > 4 else b""
    outside += bytes(len(outside) % 2)
    after = 0 if is_last else start + len(outside)
    return struct.pack("<H", len(fields)) + entries + struct.pack("<I", after) + outside


def _pack(row: np.ndarray, bits: int) -> bytes:
    if bits > 8:
        return row.astype(f"<u{bits // 8}").tobytes()
    return np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, -bits:].ravel()).tobytes()
