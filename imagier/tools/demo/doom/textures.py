"""The mean colors of what covers walls, floors and ceilings in Doom, read from a WAD file.

Format: The Unofficial Doom Specs 1.666, chapters 5 and 8.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from imagier.tools.demo.doom.doom_map import SKY_FLAT, DoomMap, list_lumps

_FLAT_BYTES = 64 * 64
_COLORS = 256
_COLUMN_END = 255
_TEXTURE = struct.Struct("<8s4xhh4xh")
_PLACE = struct.Struct("<hhh4x")
_PATCH_HEADER = struct.Struct("<HHhh")

Reader = Callable[[str], bytes]
"""What is stored under a name, other than a flat; nothing if the name is unknown."""


def measure_colors(wad: Path, doom_map: DoomMap) -> np.ndarray:
    """The mean color of each surface of a map as it is lit, N x 3, float, 0 to 255, red first.

    0 for the sky, and where nothing is.
    """
    lumps = list_lumps(wad)
    names = [name for name, *_ in lumps]
    flats_from, flats_to = (names.index(name) for name in ("F_START", "F_END"))
    places = {
        (flats_from < number < flats_to, name): place for number, (name, *place) in reversed(list(enumerate(lumps)))
    }
    of_walls, of_flats = (each.tolist() for each in np.split(doom_map.textures, [doom_map.first_floor]))
    with wad.open("rb") as file:

        def read(name: str, *, is_flat: bool = False) -> bytes:
            start, length = places.get((is_flat, name), (0, 0))
            file.seek(start)
            return file.read(length)

        palette = np.frombuffer(read("PLAYPAL")[: 3 * _COLORS], np.uint8).reshape(-1, 3)
        textures = _list_textures(read)

        def measure(pixels: np.ndarray) -> np.ndarray:
            return palette[pixels].mean(axis=0) if len(pixels) else np.zeros(3)

        walls = {name: measure(_compose(textures[name], read)) for name in set(of_walls) & textures.keys()}
        stored = {name: read(name.decode("latin-1"), is_flat=True)[:_FLAT_BYTES] for name in set(of_flats) - {SKY_FLAT}}
    flats = {name: measure(np.frombuffer(pixels, np.uint8)) for name, pixels in stored.items()}
    nothing = np.zeros(3)
    means = [walls.get(name, nothing) for name in of_walls] + [flats.get(name, nothing) for name in of_flats]
    return np.stack(means) * doom_map.light[:, None]


def _list_textures(read: Reader) -> dict[bytes, tuple[int, int, list[tuple[int, int, str]]]]:
    """By name: width, height, and the patches in it, each with the place of its left upper corner."""
    names = [each.rstrip(b"\0").decode("latin-1").upper() for (each,) in struct.iter_unpack("8s", read("PNAMES")[4:])]
    found = {}
    for lump in (read("TEXTURE1"), read("TEXTURE2")):
        count = struct.unpack_from("<i", lump)[0] if lump else 0
        for offset in struct.unpack_from(f"<{count}i", lump, 4) if count else ():
            name, width, height, parts = _TEXTURE.unpack_from(lump, offset)
            first = offset + _TEXTURE.size
            patches = [_PLACE.unpack_from(lump, first + _PLACE.size * number) for number in range(parts)]
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
                if first < last:
                    canvas[first:last, left + x] = pixels[first - top - y : last - top - y]
    return canvas[canvas >= 0]


def _list_posts(patch: bytes) -> list[tuple[int, int, np.ndarray]]:
    """The pieces of a patch that have no hole: x, y, and the colors from there down."""
    if not patch:
        return []
    width = _PATCH_HEADER.unpack_from(patch)[0]
    found = []
    for x, offset in enumerate(struct.unpack_from(f"<{width}I", patch, _PATCH_HEADER.size)):
        while patch[offset] != _COLUMN_END:
            y, length = patch[offset], patch[offset + 1]
            found.append((x, y, np.frombuffer(patch, np.uint8, length, offset + 3)))
            offset += length + 4
    return found
