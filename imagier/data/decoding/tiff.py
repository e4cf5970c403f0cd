"""What a TIFF says of its pages: the tags of its first one, and how many there are. (TIFF 6.0, Aldus 1992; BigTIFF.)"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_CLASSIC, _BIG = (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")
START = (*_CLASSIC, *_BIG)

_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA = 254, 258, 262, 277, 338
_PALETTE, _CMYK = 3, 5
_NO_PAGE = 0b101
"""Bits of a subfile that is a smaller copy, or the mask, of another page."""

_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Letters of struct by the type of a field; other types hold nothing that is asked for here."""
_MOST_PAGES, _MOST_VALUES = 1000, 16


@dataclass(frozen=True)
class Tiff:
    """What is known of a TIFF."""

    pages: int
    """Images in it, without smaller copies and masks of them. At most some 1,000 are counted."""
    bits: int
    """Of a sample of the first page."""
    samples: int
    """Of a pixel of the first page: gray or red, green, blue, and alpha."""
    photometric: int
    extra: int | None
    """What the samples beyond the colors are: 0 unknown, 1 alpha that colors were multiplied by, 2 plain alpha."""

    @property
    def has_palette(self) -> bool:
        return self.photometric == _PALETTE

    @property
    def is_cmyk(self) -> bool:
        return self.photometric == _CMYK

    @property
    def is_gray(self) -> bool:
        return self.photometric in (0, 1)

    @property
    def has_alpha(self) -> bool:
        return self.extra in (1, 2) and self.samples in (2, 4)


def read_tiff(data: bytes) -> Tiff | None:
    """None if it is no TIFF, or damaged where its first page is described: a decoder will tell."""
    if data[:4] not in START:
        return None
    try:
        return _read(data)
    except (struct.error, OverflowError):  # an offset outside of the file
        return None


def _read(data: bytes) -> Tiff | None:
    order, is_big = "<" if data[:2] == b"II" else ">", data[:4] in _BIG
    at = struct.unpack_from(f"{order}Q", data, 8)[0] if is_big else struct.unpack_from(f"{order}I", data, 4)[0]
    seen: set[int] = set()
    first: dict[int, tuple[int, ...]] | None = None
    pages = 0
    while at and at not in seen and len(seen) < _MOST_PAGES:
        seen.add(at)
        try:
            tags, at = _read_page(data, order, is_big, at)
        except (struct.error, OverflowError):
            if first is None:
                raise
            break  # what is behind a damaged page is none
        first = tags if first is None else first
        pages += not _first(tags, _SUBFILE, 0) & _NO_PAGE
    if first is None:
        return None
    extra = first.get(_EXTRA)
    return Tiff(
        pages=max(pages, 1),
        bits=_first(first, _BITS, 1),
        samples=_first(first, _SAMPLES, 1),
        photometric=_first(first, _PHOTOMETRIC, 1),
        extra=extra[0] if extra else None,
    )


def _read_page(data: bytes, order: str, is_big: bool, at: int) -> tuple[dict[int, tuple[int, ...]], int]:
    """The numbers of a page's fields by their tags, and where the next page is; 0 if there is none."""
    count_format, entry_bytes, inline_bytes, offset = ("Q", 20, 8, "Q") if is_big else ("H", 12, 4, "I")
    (count,) = struct.unpack_from(f"{order}{count_format}", data, at)
    start = at + struct.calcsize(count_format)
    end = start + count * entry_bytes
    (after,) = struct.unpack_from(f"{order}{offset}", data, end)
    tags = {}
    for entry in range(start, end, entry_bytes):
        tag, kind, number = struct.unpack_from(f"{order}HH{offset}", data, entry)
        letter = _FORMATS.get(kind)
        if letter is None or tag not in (_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA):
            continue
        values = f"{order}{min(number, _MOST_VALUES)}{letter}"
        place = entry + entry_bytes - inline_bytes
        if number * struct.calcsize(letter) > inline_bytes:
            (place,) = struct.unpack_from(f"{order}{offset}", data, place)
        tags[tag] = struct.unpack_from(values, data, place)
    return tags, after


def _first(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    values = tags.get(tag)
    return values[0] if values else default
