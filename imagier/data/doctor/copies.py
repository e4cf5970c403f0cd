"""Pictures that are there twice: with the same pixels, or as a copy that was resized or compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree
from torch.utils.data import Dataset

from imagier.data.doctor.column import Column
from imagier.data.doctor.look import LUMA_PX, luma, picture
from imagier.data.doctor.reading import FILES_AT_ONCE, Told, in_parallel
from imagier.errors import UserError

CANDIDATES = 8
"""The nearest pictures of the other set, which a picture is compared with."""

# How far a copy may be from its original: the largest difference of brightness (of 255) among n x n cells, the mean one
# of colour among 8 x 8, and the correlation of brightness. Of emoji of 64 px, made half as large and compressed as
# JPEG of quality 50, 99 of 100 copies are found, and no two different ones of 2128 are taken for copies; photographs
# of usual size change less. (tests/data/doctor/test_copies.py)
_DIFFERENCE_4, _DIFFERENCE_8, _DIFFERENCE_16, _COLOUR_8, _CORRELATION = 10, 16, 40, 12, 0.97

_CONTRAST = 8
"""Pictures whose brightness varies less than this look all alike; only their pixels tell whether they are the same."""


@dataclass(frozen=True)
class Copies:
    """Pictures of one column that are there in another one."""

    column: Column
    other: Column
    pairs: np.ndarray
    """K x 2: the place of the picture, and of its original in the other column. A picture is there once."""


def repeated(column: Column) -> Copies:
    """Files of a column with the same pixels as one before them."""
    places = column.seen
    digests = column.notes["digest"][places]
    _, first, index = np.unique(digests, return_index=True, return_inverse=True)
    before = first[index]  # np.unique gives the first place of each
    again = np.flatnonzero(before != np.arange(len(places)))
    return Copies(column, column, np.stack([places[again], places[before[again]]], axis=1))


def identical(column: Column, other: Column) -> Copies:
    """Files of a column with the same pixels as one of another column."""
    places, theirs = column.seen, other.seen
    digests, first = np.unique(other.notes["digest"][theirs], return_index=True)
    mine = column.notes["digest"][places]
    at = np.minimum(np.searchsorted(digests, mine), max(len(digests) - 1, 0))
    same = np.flatnonzero(digests[at] == mine) if len(digests) else np.zeros(0, np.int64)
    return Copies(column, other, np.stack([places[same], theirs[first[at[same]]]], axis=1))


def similar(column: Column, other: Column, *, workers: int, told: Told) -> Copies:
    """Files of a column that look like one of another column, and do not have the same pixels.

    Their notes say which may; those files are read again.
    """
    pairs = _candidates(column, other)
    tasks = [pairs[at : at + FILES_AT_ONCE].tolist() for at in range(0, len(pairs), FILES_AT_ONCE)]
    found: list[tuple[int, int]] = []
    done = 0
    for task, alike in zip(tasks, in_parallel(_Comparer(column, other), tasks, workers)):
        for (mine, theirs), yes in zip(task, alike):
            found += [(mine, theirs)] if yes else []
            done += 1
            told(done, len(pairs))
    return Copies(column, other, np.array(found, np.int64).reshape(-1, 2))


def are_alike(picture: np.ndarray, other: np.ndarray) -> bool:
    """Whether of two pictures H x W x C, as stored, one may be a copy of the other, resized or compressed."""
    differences = {side: np.abs(luma(picture, side) - luma(other, side)).max() for side in (8, 16)}
    if differences[8] > _DIFFERENCE_8 or differences[16] > _DIFFERENCE_16:
        return False
    if picture.shape[2] == other.shape[2] and picture.dtype == other.dtype == np.uint8:
        mine, theirs = (
            cv2.resize(x, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32) for x in (picture, other)
        )
        if np.abs(mine - theirs).mean() > _COLOUR_8:
            return False
    brightness = [luma(x, 16).ravel() for x in (picture, other)]
    if min(np.ptp(values) for values in brightness) < _CONTRAST:
        return False
    return bool(np.corrcoef(brightness)[0, 1] >= _CORRELATION)


def _candidates(column: Column, other: Column) -> np.ndarray:
    """K x 2 places of pictures and of the one of the other column that may be its original."""
    places, theirs = _with_contrast(column), _with_contrast(other)
    if not len(places) or not len(theirs):
        return np.zeros((0, 2), np.int64)
    tree = cKDTree(_coarse(other, theirs))
    count = min(CANDIDATES, len(theirs))
    _, found = tree.query(
        _coarse(column, places), k=list(range(1, count + 1)), p=np.inf, distance_upper_bound=_DIFFERENCE_4
    )
    row, rank = np.nonzero(found < len(theirs))  # there, the tree says that it has found nothing
    mine, candidates = places[row], theirs[found[row, rank]]
    gaps = np.abs(column.notes["luma"][mine].astype(np.int16) - other.notes["luma"][candidates]).max(axis=(1, 2))
    near = gaps <= _DIFFERENCE_8
    near &= column.notes["digest"][mine] != other.notes["digest"][candidates]
    order = np.lexsort((gaps[near], mine[near]))
    mine, candidates = mine[near][order], candidates[near][order]
    _, nearest = np.unique(mine, return_index=True)
    return np.stack([mine[nearest], candidates[nearest]], axis=1)


def _with_contrast(column: Column) -> np.ndarray:
    places = column.seen
    return places[np.ptp(column.notes["luma"][places], axis=(1, 2)) >= _CONTRAST]


def _coarse(column: Column, places: np.ndarray) -> np.ndarray:
    """N x 16: the brightness in 4 x 4 cells."""
    half = LUMA_PX // 4
    cells = column.notes["luma"][places].reshape(-1, 4, half, 4, half)
    return cells.mean(axis=(2, 4), dtype=np.float32).reshape(-1, 16)


class _Comparer(Dataset):
    """Reads pairs of files, and says of each whether they are alike."""

    def __init__(self, column: Column, other: Column) -> None:
        self.sides = [(side.kind, side.items) for side in (column, other)]

    def __getitem__(self, pairs: Sequence[tuple[int, int]]) -> list[bool]:
        return [self._compare(pair) for pair in pairs]

    def _compare(self, pair: tuple[int, int]) -> bool:
        try:
            return are_alike(*[picture(*items[place], kind) for (kind, items), place in zip(self.sides, pair)])
        except UserError:
            return False  # one of them was there a moment ago
