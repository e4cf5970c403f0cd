"""Image files that are written row by row, so that no whole image is in memory: PNG (ISO/IEC 15948) and TIFF 6.0."""

from __future__ import annotations

import struct
import zlib
from typing import IO

import numpy as np

from imagier.data.augmentation.warp import Size

LEVEL = 3
"""Of zlib, 1 to 9: larger is slower and smaller."""

_PNG_START, _PNG_COLORS = b"\x89PNG\r\n\x1a\n", {3: 2, 4: 6}
_SUB = 1
"""Each row holds differences from the pixel to the left."""

_STRIP_BYTES = 1 << 20
_SHORT, _LONG = 3, 4
_DEFLATE, _RGB, _HORIZONTAL, _STRAIGHT_ALPHA = 8, 2, 2, 2


class PngRows:
    """A PNG of 8 or 16 bits, of red, green, blue, and alpha if there are four channels."""

    def __init__(self, file: IO[bytes], size: Size, channels: int, bits: int) -> None:
        self.file = file
        self.zlib = zlib.compressobj(LEVEL)
        file.write(_PNG_START)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], bits, _PNG_COLORS[channels], 0, 0, 0))

    def write(self, rows: np.ndarray) -> None:
        """The next h x W x channels, uint8 or uint16."""
        height, width = rows.shape[:2]
        wide = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">")).view(np.uint8).reshape(height, width, -1)
        filtered = wide.copy()
        filtered[:, 1:] -= wide[:, :-1]
        lines = np.empty((height, 1 + filtered[0].size), np.uint8)
        lines[:, 0], lines[:, 1:] = _SUB, filtered.reshape(height, -1)
        self._data(self.zlib.compress(lines.tobytes()))

    def finish(self) -> None:
        """Writes the end of the file, after the last row."""
        self._data(self.zlib.flush())
        self._chunk(b"IEND", b"")

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, name: bytes, data: bytes) -> None:
        checksum = zlib.crc32(data, zlib.crc32(name))
        self.file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum))


class TiffRows:
    """The same as a TIFF: strips of a few rows, compressed by deflate after taking differences along the rows."""

    def __init__(self, file: IO[bytes], size: Size, channels: int, bits: int) -> None:
        """file: can be sought in."""
        self.file, self.size, self.channels, self.bits = file, size, channels, bits
        self.rows_per_strip = max(1, min(size[0], _STRIP_BYTES // (size[1] * channels * bits // 8)))
        self.waiting = np.empty((0, size[1], channels), np.uint8 if bits == 8 else np.uint16)
        self.strips: list[tuple[int, int]] = []
        """Place and length of each."""
        file.write(struct.pack("<2sHI", b"II", 42, 0))  # where the directory lies, which comes last, is not known yet

    def write(self, rows: np.ndarray) -> None:
        """The next h x W x channels, uint8 or uint16."""
        self.waiting = np.concatenate([self.waiting, rows])
        while len(self.waiting) >= self.rows_per_strip:
            self._strip(self.waiting[: self.rows_per_strip])
            self.waiting = self.waiting[self.rows_per_strip :]

    def finish(self) -> None:
        """Writes the end of the file, after the last row."""
        if len(self.waiting):
            self._strip(self.waiting)
        place = self.file.tell()
        places, lengths = zip(*self.strips)
        entries = [
            (256, _LONG, [self.size[1]]),  # width
            (257, _LONG, [self.size[0]]),  # height
            (258, _SHORT, [self.bits] * self.channels),
            (259, _SHORT, [_DEFLATE]),  # compression
            (262, _SHORT, [_RGB]),  # photometric interpretation
            (273, _LONG, places),  # of the strips
            (277, _SHORT, [self.channels]),
            (278, _LONG, [self.rows_per_strip]),
            (279, _LONG, lengths),
            (284, _SHORT, [1]),  # channels side by side
            (317, _SHORT, [_HORIZONTAL]),  # predictor
            *([(338, _SHORT, [_STRAIGHT_ALPHA])] if self.channels == 4 else []),  # what the fourth channel is
        ]
        self.file.write(_directory(entries, place))
        self.file.seek(4)
        self.file.write(struct.pack("<I", place))

    def _strip(self, rows: np.ndarray) -> None:
        filtered = rows.copy()
        filtered[:, 1:] -= rows[:, :-1]
        data = zlib.compress(filtered.astype(filtered.dtype.newbyteorder("<")).tobytes(), LEVEL)
        self.strips.append((self.file.tell(), len(data)))
        self.file.write(data + b"\0" * (len(data) % 2))  # what follows begins at an even place


def _directory(entries: list[tuple], place: int) -> bytes:
    """The bytes of a TIFF directory that begins at a place; values of more than four bytes come behind it."""
    head, tail = struct.pack("<H", len(entries)), b""
    behind = place + 2 + 12 * len(entries) + 4
    for tag, kind, values in entries:
        data = struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        if len(data) > 4:
            data, tail = struct.pack("<I", behind + len(tail)), tail + data + b"\0" * (len(data) % 2)
        head += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    return head + struct.pack("<I", 0) + tail
