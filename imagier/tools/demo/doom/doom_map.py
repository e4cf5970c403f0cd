"""The geometry of a map of Doom, read from its WAD file: walls between sectors, each with a floor and a ceiling.

Format: The Unofficial Doom Specs 1.666, chapters 2 and 4. Lengths are map units; a person is 56 of them tall.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

NO_SECTOR = -1

_DIRECTORY_ENTRY = 16
_VERTEX = np.dtype([("x", "<i2"), ("y", "<i2")])
_LINE = np.dtype(
    [(name, "<u2") for name in ("start", "end", "flags", "special", "tag", "right", "left")],
)
_SIDE = np.dtype([("x", "<i2"), ("y", "<i2"), ("upper", "S8"), ("lower", "S8"), ("middle", "S8"), ("sector", "<u2")])
_SECTOR = np.dtype(
    [("floor", "<i2"), ("ceiling", "<i2"), ("floor_flat", "S8"), ("ceiling_flat", "S8")]
    + [(name, "<u2") for name in ("light", "special", "tag")]
)
_THING = np.dtype([(name, "<i2") for name in ("x", "y", "angle", "type", "flags")])
_LUMPS = {"THINGS": _THING, "VERTEXES": _VERTEX, "LINEDEFS": _LINE, "SIDEDEFS": _SIDE, "SECTORS": _SECTOR}
_NO_SIDE, _IMPASSABLE = 0xFFFF, 1
SKY_FLAT = b"F_SKY1"
_LIQUIDS = (b"FWATER", b"SWATER", b"NUKAGE", b"LAVA", b"BLOOD", b"SLIME0")


@dataclass(frozen=True)
class DoomMap:
    """Lines by their start and end, L x 2 each, and S sectors."""

    start: np.ndarray
    end: np.ndarray
    right: np.ndarray
    """The sector to the right of each line, as seen from its start to its end; NO_SECTOR for none."""
    left: np.ndarray
    is_blocking: np.ndarray
    """L, bool: nobody may cross the line, whatever is behind it."""
    has_texture: np.ndarray
    """L, bool: something hangs between floor and ceiling, such as a grating, which may have holes."""
    special: np.ndarray
    """L: what happens where a line is crossed or used; 0: nothing."""
    floor: np.ndarray
    ceiling: np.ndarray
    is_sky: np.ndarray
    """S, bool: open to the sky."""
    is_liquid: np.ndarray
    """S, bool: the floor is water, lava, slime, ..."""
    special_sector: np.ndarray
    """S: what happens to whoever stands there; 0: nothing."""
    things: np.ndarray
    """Where players, monsters, items and decorations start, N x 2."""
    textures: np.ndarray
    """What covers each of the 6 L + 2 S surfaces, S8: the upper, lower and middle part of the right side of each line,
    then of its left side; the floor of each sector; its ceiling."""
    light: np.ndarray
    """Of each surface: that of the sector it faces, 0 to 1."""

    @property
    def first_floor(self) -> int:
        """The number of the first surface that is a floor: how many parts of walls there are."""
        return len(self.textures) - 2 * len(self.floor)


def list_maps(wad: Path) -> list[str]:
    """The names of all maps in a WAD file, such as MAP01 or E1M1."""
    names = [name for name, _, _ in list_lumps(wad)]
    return [name for name, following in pairwise(names) if following == "THINGS"]


def read_map(wad: Path, name: str) -> DoomMap:
    """A map by its name, which the file must have."""
    lumps = list_lumps(wad)
    first = next(index for index, lump in enumerate(lumps) if lump[0] == name)
    parts = {}
    with wad.open("rb") as file:
        for lump, offset, length in lumps[first + 1 : first + 11]:
            if lump in _LUMPS:
                file.seek(offset)
                parts[lump] = np.frombuffer(file.read(length), _LUMPS[lump])
    return _connect(parts)


def _connect(parts: dict[str, np.ndarray]) -> DoomMap:
    lines, sides, sectors = parts["LINEDEFS"], parts["SIDEDEFS"], parts["SECTORS"]
    points, things = (np.stack([part["x"], part["y"]], axis=1) * 1.0 for part in (parts["VERTEXES"], parts["THINGS"]))

    def find_sector(side: np.ndarray) -> np.ndarray:
        known = side != _NO_SIDE
        return np.where(known, sides["sector"][np.where(known, side, 0)].astype(np.int64), NO_SECTOR)

    right, left = find_sector(lines["right"]), find_sector(lines["left"])
    start, end = points[lines["start"]], points[lines["end"]]
    kept = (start != end).any(axis=1)
    parts_of_sides = np.stack([sides[part] for part in ("upper", "lower", "middle")], axis=1)
    of_walls = np.stack([parts_of_sides[lines[side] % len(sides)] for side in ("right", "left")], axis=1)[kept]
    faced = np.stack([right, left], axis=1)[kept].repeat(3)
    light = sectors["light"].clip(0, 255) / 255
    return DoomMap(
        start=start[kept],
        end=end[kept],
        right=right[kept],
        left=left[kept],
        is_blocking=((lines["flags"] & _IMPASSABLE) > 0)[kept],
        has_texture=(of_walls[:, 0, 2] != b"-") & (left[kept] != NO_SECTOR),
        special=lines["special"][kept].astype(np.int64),
        floor=sectors["floor"].astype(np.float64),
        ceiling=sectors["ceiling"].astype(np.float64),
        is_sky=sectors["ceiling_flat"] == SKY_FLAT,
        is_liquid=np.array([flat.startswith(_LIQUIDS) for flat in sectors["floor_flat"].tolist()], bool),
        special_sector=sectors["special"].astype(np.int64),
        things=things,
        textures=np.concatenate([of_walls.ravel(), sectors["floor_flat"], sectors["ceiling_flat"]]),
        light=np.concatenate([light[faced], light, light]),
    )


def list_lumps(wad: Path) -> list[tuple[str, int, int]]:
    """Name, offset and length in bytes of everything in a WAD file."""
    with wad.open("rb") as file:
        count, offset = struct.unpack("<4xii", file.read(12))
        file.seek(offset)
        directory = file.read(count * _DIRECTORY_ENTRY)
    entries = struct.iter_unpack("<ii8s", directory)
    return [(name.rstrip(b"\0").decode("latin-1"), start, length) for start, length, name in entries]
