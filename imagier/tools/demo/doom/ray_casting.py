"""What a camera sees of the static parts of a map of Doom: exact depth, and what each pixel shows.

Each column of pixels is a vertical plane. Its ray crosses the lines of the map one after the other; between two of them
lie the floor and the ceiling of one sector, and at a line rise the walls to the floor and the ceiling behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imagier.tools.demo.doom.doom_map import NO_SECTOR, DoomMap

SKY, FLOOR, CEILING, WALL, LIQUID = range(5)
"""What pixels show."""

UPPER, LOWER, MIDDLE = range(3)
"""Parts of a side of a line."""
_NEAREST = 1e-3
_AWRY = 37.3
"""A direction in which lines rarely run."""
_MOST_LINES = 96
"""Lines that a ray may cross before it ends; what lies behind them is left as sky."""


@dataclass(frozen=True)
class Lens:
    """Pixels x to the right and y down, the center of the first at (0, 0): x = fx X / Z + cx, y = fy Y / Z + cy."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


@dataclass(frozen=True)
class Pose:
    """Where the camera is, in map units, and where it looks: in degrees, counter-clockwise from the x axis."""

    x: float
    y: float
    z: float
    angle: float

    @property
    def forward(self) -> tuple[float, float]:
        """The direction of the view, of length 1."""
        angle = np.deg2rad(self.angle)
        return float(np.cos(angle)), float(np.sin(angle))


def cast_rays(doom_map: DoomMap, pose: Pose, lens: Lens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth H x W, along the view, inf where the sky is; what is seen, H x W, uint8; which surface, H x W, -1 for none.

    Surfaces are numbered as `DoomMap.textures` are.
    """
    hits = _find_hits(doom_map, pose, lens)
    rise = ((lens.cy - np.arange(lens.height)) / lens.fy)[:, None]
    depth, seen = np.full((lens.height, lens.width), np.inf), np.full((lens.height, lens.width), SKY, np.uint8)
    surface = np.full((lens.height, lens.width), -1)
    is_open = np.ones((lens.height, lens.width), bool)
    floors, ceilings = doom_map.floor - pose.z, doom_map.ceiling - pose.z
    first_floor, first_ceiling = doom_map.first_floor, doom_map.first_floor + len(doom_map.floor)
    for distance, near, far, side in hits:
        columns = np.flatnonzero(np.isfinite(distance) & is_open.any(axis=0))
        if not len(columns):
            break
        z, here, behind = distance[columns], near[columns], far[columns]
        low, high, sky = floors[here], ceilings[here], doom_map.is_sky[here]
        height = rise * z
        is_left = is_open[:, columns]
        is_floor, is_ceiling = is_left & (height < low), is_left & (height > high)
        is_solid = behind == NO_SECTOR
        low_behind, high_behind = floors[behind], ceilings[behind]
        is_sky_beyond = sky & doom_map.is_sky[behind]
        is_shut = (low_behind >= high_behind) & ~is_sky_beyond
        is_below = (height < low_behind) | is_solid | is_shut
        is_above = (height > high_behind) & ~is_sky_beyond
        is_wall = is_left & ~is_floor & ~is_ceiling & (is_below | is_above)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(is_floor, low / rise, np.where(is_ceiling & ~sky, high / rise, np.inf))
        depth[:, columns] = np.where(is_wall, z, np.where(is_left, found, depth[:, columns]))
        ground = np.where(doom_map.is_liquid[here], LIQUID, FLOOR)
        kinds = np.where(is_floor, ground, np.where(is_ceiling, np.where(sky, SKY, CEILING), WALL))
        ended = is_floor | is_ceiling | is_wall
        seen[:, columns] = np.where(ended, kinds, seen[:, columns])
        part = np.where(is_solid, MIDDLE, np.where(height < low_behind, LOWER, UPPER))
        wall = 3 * side[columns] + part
        found = np.where(is_floor, first_floor + here, np.where(is_ceiling, first_ceiling + here, wall))
        surface[:, columns] = np.where(ended, found, surface[:, columns])
        is_open[:, columns] = is_left & ~ended
    return depth, seen, surface


def find_sector(doom_map: DoomMap, x: float, y: float) -> int:
    """The sector in which a place lies; NO_SECTOR outside of the map."""
    hits = _find_hits(doom_map, Pose(x, y, 0, _AWRY), Lens(1, 1, 0, 0, 1, 1))
    return int(hits[0][1][0]) if hits else NO_SECTOR


def _find_hits(doom_map: DoomMap, pose: Pose, lens: Lens) -> list[tuple[np.ndarray, ...]]:
    """What the ray of each column crosses, nearest first: depth, the sector before it, the one behind it, and its side.

    A side is twice the number of its line, plus 1 for the left one.

    Each W; a depth of inf where there is nothing more.
    """
    (cos, sin), origin = pose.forward, np.array([pose.x, pose.y])
    aside = (np.arange(lens.width) - lens.cx) / lens.fx
    # In the coordinates of the camera: to the right, and forward.
    axes = np.array([[sin, -cos], [cos, sin]])
    start, end = (doom_map.start - origin) @ axes.T, (doom_map.end - origin) @ axes.T
    # The ray of a column is (aside, 1) t. On which side of it the ends of a line lie:
    side_of_start, side_of_end = (point[:, :1] - aside * point[:, 1:] for point in (start, end))
    crosses = (side_of_start <= 0) != (side_of_end <= 0)
    kept = np.flatnonzero(crosses.any(axis=1) & ((start[:, 1] > _NEAREST) | (end[:, 1] > _NEAREST)))
    start, end, crosses = start[kept], end[kept], crosses[kept]
    side_of_start, side_of_end = side_of_start[kept], side_of_end[kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = side_of_start / (side_of_start - side_of_end)
    depth = start[:, 1:] + share * (end - start)[:, 1:]
    depth = np.where(crosses & (depth > _NEAREST), depth, np.inf)
    count = min(_MOST_LINES, len(depth))
    order = np.argsort(depth, axis=0)[:count]
    # A line that runs from left to right shows its left side to the camera, seen from below: its right one.
    from_right = side_of_start < side_of_end
    right, left = doom_map.right[kept][:, None], doom_map.left[kept][:, None]
    sides = np.where(from_right, right, left), np.where(from_right, left, right)
    side = 2 * kept[:, None] + ~from_right
    depth, near, far, side = (np.take_along_axis(each, order, axis=0) for each in (depth, *sides, side))
    return list(zip(depth, near, far, side))
