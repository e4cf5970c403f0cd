"""The mean colors of what covers walls, floors and ceilings in Doom, read from a WAD file.

Format: The Unofficial Doom Specs 1.666, chapters 5 and 8.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from imagier.tools.demo.doom.doom_map import DoomMap, list_lumps

_FLAT_BYTES = 64 * 64
_COLORS = 256
_COLUMN_END = 255
_TEXTURE = struct.Struct("<8s4xhh4xh")
_PATCH = struct.Struct("<hhh4x")
_PICTURE = struct.Struct("<HHhh")


def measure_colors(wad: Path, doom_map: DoomMap) -> np.ndarray:
    """The mean color of each surface of a map as it is lit, N x 3, float, 0 to 255, red first.

    0 for the sky, and where nothing is.
    """
    lumps = {name: (start, length) for name, start, length in list_lumps(wad)}
    with wad.open("rb") as file:

        def read(name: str) -> bytes:
            start, length = lumps.get(name, (0, 0))
            file.seek(start)
            return file.read(length)

        palette = np.frombuffer(read("PLAYPAL")[: 3 * _COLORS], np.uint8).reshape(-1, 3)
        textures = _list_textures(read)
        means: dict[bytes, np.ndarray] = {}
        for name in set(doom_map.textures.tolist()):
            pixels = _compose(textures[name], read) if name in textures else _read_flat(name, read)
            means[name] = palette[pixels].mean(axis=0) if len(pixels) and name != b"F_SKY1" else np.zeros(3)
    return np.stack([means[name] for name in doom_map.textures.tolist()]) * doom_map.light[:, None]


Reader = Callable[[str], bytes]
"""What is stored under a name; nothing if the name is unknown."""


def _read_flat(name: bytes, read: Reader) -> np.ndarray:
    """Of the floor or ceiling of this name, the colors by number; none if there is no such thing."""
    return np.frombuffer(read(name.decode("latin-1"))[:_FLAT_BYTES], np.uint8)


def _list_textures(read: Reader) -> dict[bytes, tuple[int, int, list[tuple[int, int, str]]]]:
    """By name: width, height, and the pictures in it, each with the place of its left upper corner."""
    names = [each.rstrip(b"\0").decode("latin-1").upper() for (each,) in struct.iter_unpack("8s", read("PNAMES")[4:])]
    found = {}
    for lump in (read("TEXTURE1"), read("TEXTURE2")):
        count = struct.unpack_from("<i", lump)[0] if lump else 0
        for offset in struct.unpack_from(f"<{count}i", lump, 4) if count else ():
            name, width, height, parts = _TEXTURE.unpack_from(lump, offset)
            first = offset + _TEXTURE.size
            patches = [_PATCH.unpack_from(lump, first + _PATCH.size * number) for number in range(parts)]
            found[name.rstrip(b"\0")] = width, height, [(x, y, names[number]) for x, y, number in patches]
    return found


def _compose(texture: tuple[int, int, list[tuple[int, int, str]]], read: Reader) -> np.ndarray:
    """The colors of a texture by number, without its holes."""
    width, height, patches = texture
    canvas = np.full((height, width), -1)
    for left, top, name in patches:
        for x, y, pixels in _list_posts(read(name)):
            if 0 <= left + x < width:
                first, last = max(top + y, 0), min(top + y + len(pixels), height)
                canvas[first:last, left + x] = pixels[first - top - y : last - top - y]
    return canvas[canvas >= 0]


def _list_posts(picture: bytes) -> list[tuple[int, int, np.ndarray]]:
    """The pieces of a picture that have no hole: x, y, and the colors from there down."""
    if not picture:
        return []
    width = _PICTURE.unpack_from(picture)[0]
    found = []
    for x, offset in enumerate(struct.unpack_from(f"<{width}I", picture, _PICTURE.size)):
        while picture[offset] != _COLUMN_END:
            y, length = picture[offset], picture[offset + 1]
            found.append((x, y, np.frombuffer(picture, np.uint8, length, offset + 3)))
            offset += length + 4
    return found
