"""Walks of a camera through a map of Doom, planned so that it never touches a wall."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from imagier.tools.demo.doom.doom_map import NO_SECTOR, DoomMap
from imagier.tools.demo.doom.ray_casting import find_sector

_CELL = 8
"""Map units."""
_MARGIN, _THING_RADIUS = 28, 20
"""How near walls may come to the way, and how large things are. A person is a square of 32 units."""
_STEP, _HEIGHT = 24, 56
_LIGHTS = (0, 1, 2, 3, 8, 12, 13, 17)
"""What sectors may do to whoever stands in them: nothing but their light changes."""
_FEWEST_CELLS = 400
_ACCELERATION_FRAMES, _LOOK_AHEAD, _SMOOTHING = 16, 48.0, 5.0


@dataclass(frozen=True)
class Ground:
    """Places where a person can stand and walk, N x 2, and a graph of the ways between neighbors."""

    places: np.ndarray
    ways: csr_matrix
    clearance: np.ndarray
    """Distance to what blocks, by cell."""
    corner: np.ndarray

    def is_clear(self, points: np.ndarray, distance: float) -> bool:
        """Whether all points ... x 2 are so far from what blocks."""
        cells = ((points - self.corner) / _CELL).round().astype(int)
        return bool((self.clearance[cells[..., 1], cells[..., 0]] >= distance).all())


@dataclass(frozen=True)
class Walk:
    """Where the camera is in each frame, T x 2, and where it looks, T, in degrees."""

    positions: np.ndarray
    angles: np.ndarray


def find_ground(doom_map: DoomMap) -> Ground | None:
    """The ground of a map; None if there is no room to walk."""
    corner = np.minimum(doom_map.start, doom_map.end).min(axis=0) - 64
    width, height = ((np.maximum(doom_map.start, doom_map.end).max(axis=0) + 64 - corner) / _CELL).astype(int)
    free = np.full((height, width), 255, np.uint8)
    blocks = _find_blocking(doom_map)
    ends = np.stack([doom_map.start[blocks], doom_map.end[blocks]], axis=1)
    cv2.polylines(free, list(((ends - corner) / _CELL).round().astype(np.int32)), isClosed=False, color=0)
    clearance = _measure_distance(free)
    is_free = (clearance >= _MARGIN).astype(np.uint8)
    _, rooms = cv2.connectedComponents(is_free, connectivity=4)
    cells = ((doom_map.things - corner) / _CELL).round().astype(int).clip(0, [width - 1, height - 1])
    # Where a thing is, there is a room, and not the nothing beyond the walls; all of it is like the place of the thing.
    is_good = np.array([_is_good(doom_map, find_sector(doom_map, x, y)) for x, y in doom_map.things.tolist()], bool)
    with_things = np.setdiff1d(rooms[cells[is_good, 1], cells[is_good, 0]], [0])
    without_things = np.full((height, width), 255, np.uint8)
    without_things[cells[:, 1], cells[:, 0]] = 0
    clearance = np.minimum(clearance, _measure_distance(without_things) - _THING_RADIUS)
    is_ground = np.isin(rooms, with_things) & (clearance >= _MARGIN)
    if np.count_nonzero(is_ground) < _FEWEST_CELLS:
        return None
    rows, columns = np.nonzero(is_ground)
    places = np.stack([columns, rows], axis=1) * float(_CELL) + corner
    return Ground(places, _connect(is_ground, clearance), clearance, corner)


def _is_good(doom_map: DoomMap, sector: int) -> bool:
    """Whether a person can stand in a sector, and nothing happens then."""
    is_tall = doom_map.ceiling[sector] - doom_map.floor[sector] >= _HEIGHT
    return sector != NO_SECTOR and bool(is_tall) and int(doom_map.special_sector[sector]) in _LIGHTS


def _measure_distance(free: np.ndarray) -> np.ndarray:
    """H x W, uint8, 0 where something is -> the distance to it in map units."""
    return cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * _CELL


def _find_blocking(doom_map: DoomMap) -> np.ndarray:
    """L, bool: lines that a walk must not cross, since nobody can, or since something would happen."""
    right, left = doom_map.right, doom_map.left
    floor, ceiling = doom_map.floor, doom_map.ceiling
    opening = np.minimum(ceiling[right], ceiling[left]) - np.maximum(floor[right], floor[left])
    happens = ~np.isin(doom_map.special_sector, _LIGHTS)
    return (
        (right == NO_SECTOR)
        | (left == NO_SECTOR)
        | doom_map.is_blocking
        | doom_map.has_texture
        | (doom_map.special > 0)
        | (np.abs(floor[right] - floor[left]) > _STEP)
        | (opening < _HEIGHT)
        | happens[right]
        | happens[left]
    )


def _connect(is_ground: np.ndarray, clearance: np.ndarray) -> csr_matrix:
    """Ways between neighbors, which are the longer the nearer they come to walls."""
    number = np.full(is_ground.shape, -1)
    number[is_ground] = np.arange(np.count_nonzero(is_ground))
    starts, ends, lengths = [], [], []
    height, width = is_ground.shape
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        there = np.s_[down:, max(0, right) : width - max(0, -right)]
        both = is_ground[here] & is_ground[there]
        starts.append(number[here][both])
        ends.append(number[there][both])
        lengths.append(np.hypot(down, right) * _CELL * (1 + 64 / clearance[here][both]))
    count = np.count_nonzero(is_ground)
    return csr_matrix((np.concatenate(lengths), (np.concatenate(starts), np.concatenate(ends))), (count, count))


def plan_walk(ground: Ground, frames: int, rng: np.random.Generator, *, returns: bool) -> Walk | None:
    """A random walk of so many frames, even; None if this try led nowhere.

    returns: the second half is the first one, backwards: frame T - 1 - t shows what frame t does.
    """
    count = frames // 2 if returns else frames
    speed = np.full(count, rng.uniform(4, 8))
    ramp = np.sin(np.linspace(0, np.pi / 2, min(_ACCELERATION_FRAMES, count // 2))) ** 2
    speed[: len(ramp)] *= ramp
    if returns:
        speed[len(speed) - len(ramp) :] *= ramp[::-1]
    distance = np.cumsum(speed) - speed[0]
    way = _find_way(ground, distance[-1] + 2 * _LOOK_AHEAD, rng)
    if way is None:
        return None
    positions, ahead = _place(way, distance), _place(way, distance + _LOOK_AHEAD)
    heading = np.unwrap(np.arctan2(*(ahead - positions).T[::-1]))
    sway = np.deg2rad(rng.uniform(0, 25)) * np.sin(
        2 * np.pi * (np.arange(count) / rng.uniform(50, 110) + rng.uniform(0, 1))
    )
    angles = np.rad2deg(gaussian_filter1d(heading, 2 * _SMOOTHING, mode="nearest") + sway)
    if returns:
        positions, angles = np.concatenate([positions, positions[::-1]]), np.concatenate([angles, angles[::-1]])
    return Walk(positions, angles)


def _find_way(ground: Ground, length: float, rng: np.random.Generator) -> np.ndarray | None:
    """A smooth way of at least this length from one random place to another, a point every cell: K x 2."""
    start = int(rng.integers(len(ground.places)))
    distances, before = dijkstra(ground.ways, directed=False, indices=start, return_predecessors=True)
    far = np.flatnonzero(np.isfinite(distances) & (distances > 1.2 * length))
    if not len(far):
        return None
    leg = [int(rng.choice(far))]
    while leg[-1] != start:
        leg.append(int(before[leg[-1]]))
    way = ground.places[leg[::-1]]
    even = _place(way, np.arange(0, np.hypot(*np.diff(way, axis=0).T).sum(), _CELL))
    smooth = gaussian_filter1d(even, _SMOOTHING, axis=0, mode="nearest")
    is_long = _CELL * len(smooth) > 1.1 * length
    return smooth if is_long and ground.is_clear(smooth, 0.8 * _MARGIN) else None


def _place(way: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The points of a way at these distances from its start."""
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(way, axis=0).T))])
    return np.stack([np.interp(distances, lengths, each) for each in way.T], axis=1)
