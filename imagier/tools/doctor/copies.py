"""Images that are there twice: with the same pixels, or as a copy that was resized or compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree
from torch.utils.data import Dataset

from imagier.errors import UserError
from imagier.tools.doctor.file_stats import LUMA_PX, image, luma
from imagier.tools.doctor.file_table import FileTable
from imagier.tools.doctor.reading import FILES_AT_ONCE, Told, in_parallel

CANDIDATES = 8
"""The nearest images of the other set, which an image is compared with."""

# How far a copy may be from its original: the largest difference of brightness (of 255) among n x n cells, the mean one
# of color among 8 x 8, and the correlation of brightness. Of emoji of 64 px, made half as large and compressed as
# JPEG of quality 50, 99 of 100 copies are found, and no two different ones of 2128 are taken for copies; photographs
# of usual size change less. (tests/data/doctor/test_copies.py)
_DIFFERENCE_4, _DIFFERENCE_8, _DIFFERENCE_16, _COLOR_8, _CORRELATION = 10, 16, 40, 12, 0.97

_CONTRAST = 8
"""Images whose brightness varies less than this look all alike; only their pixels tell whether they are the same."""


@dataclass(frozen=True)
class Copies:
    """Images of one column that are there in another one."""

    table: FileTable
    other: FileTable
    pairs: np.ndarray
    """K x 2: the place of the image, and of its original in the other column. An image is there once."""


def repeated(table: FileTable) -> Copies:
    """Files of a column with the same pixels as one before them."""
    places = table.seen
    digests = table.notes["digest"][places]
    _, first, index = np.unique(digests, return_index=True, return_inverse=True)
    before = first[index]  # np.unique gives the first place of each
    again = np.flatnonzero(before != np.arange(len(places)))
    return Copies(table, table, np.stack([places[again], places[before[again]]], axis=1))


def identical(table: FileTable, other: FileTable) -> Copies:
    """Files of a column with the same pixels as one of another column."""
    places, theirs = table.seen, other.seen
    digests, first = np.unique(other.notes["digest"][theirs], return_index=True)
    mine = table.notes["digest"][places]
    at = np.minimum(np.searchsorted(digests, mine), max(len(digests) - 1, 0))
    same = np.flatnonzero(digests[at] == mine) if len(digests) else np.zeros(0, np.int64)
    return Copies(table, other, np.stack([places[same], theirs[first[at[same]]]], axis=1))


def similar(table: FileTable, other: FileTable, *, workers: int, told: Told) -> Copies:
    """Files of a column that look like one of another column, and do not have the same pixels.

    Their notes say which may; those files are read again.
    """
    pairs = _candidates(table, other)
    tasks = [pairs[at : at + FILES_AT_ONCE].tolist() for at in range(0, len(pairs), FILES_AT_ONCE)]
    found: list[tuple[int, int]] = []
    done = 0
    for task, alike in zip(tasks, in_parallel(_Comparer(table, other), tasks, workers)):
        for (mine, theirs), yes in zip(task, alike):
            found += [(mine, theirs)] if yes else []
            done += 1
            told(done, len(pairs))
    return Copies(table, other, np.array(found, np.int64).reshape(-1, 2))


def are_alike(image: np.ndarray, other: np.ndarray) -> bool:
    """Whether of two images H x W x C, as stored, one may be a copy of the other, resized or compressed."""
    differences = {side: np.abs(luma(image, side) - luma(other, side)).max() for side in (8, 16)}
    if differences[8] > _DIFFERENCE_8 or differences[16] > _DIFFERENCE_16:
        return False
    if image.shape[2] == other.shape[2] and image.dtype == other.dtype == np.uint8:
        mine, theirs = (cv2.resize(x, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32) for x in (image, other))
        if np.abs(mine - theirs).mean() > _COLOR_8:
            return False
    brightness = [luma(x, 16).ravel() for x in (image, other)]
    if min(np.ptp(values) for values in brightness) < _CONTRAST:
        return False
    return bool(np.corrcoef(brightness)[0, 1] >= _CORRELATION)


def _candidates(table: FileTable, other: FileTable) -> np.ndarray:
    """K x 2 places of images and of the one of the other column that may be its original."""
    places, theirs = _with_contrast(table), _with_contrast(other)
    if not len(places) or not len(theirs):
        return np.zeros((0, 2), np.int64)
    tree = cKDTree(_coarse(other, theirs))
    count = min(CANDIDATES, len(theirs))
    _, found = tree.query(
        _coarse(table, places), k=list(range(1, count + 1)), p=np.inf, distance_upper_bound=_DIFFERENCE_4
    )
    row, rank = np.nonzero(found < len(theirs))  # there, the tree says that it has found nothing
    mine, candidates = places[row], theirs[found[row, rank]]
    gaps = np.abs(table.notes["luma"][mine].astype(np.int16) - other.notes["luma"][candidates]).max(axis=(1, 2))
    near = gaps <= _DIFFERENCE_8
    near &= table.notes["digest"][mine] != other.notes["digest"][candidates]
    order = np.lexsort((gaps[near], mine[near]))
    mine, candidates = mine[near][order], candidates[near][order]
    _, nearest = np.unique(mine, return_index=True)
    return np.stack([mine[nearest], candidates[nearest]], axis=1)


def _with_contrast(table: FileTable) -> np.ndarray:
    places = table.seen
    return places[np.ptp(table.notes["luma"][places], axis=(1, 2)) >= _CONTRAST]


def _coarse(table: FileTable, places: np.ndarray) -> np.ndarray:
    """N x 16: the brightness in 4 x 4 cells."""
    half = LUMA_PX // 4
    cells = table.notes["luma"][places].reshape(-1, 4, half, 4, half)
    return cells.mean(axis=(2, 4), dtype=np.float32).reshape(-1, 16)


class _Comparer(Dataset):
    """Reads pairs of files, and says of each whether they are alike."""

    def __init__(self, table: FileTable, other: FileTable) -> None:
        self.sides = [(side.codec, side.items) for side in (table, other)]

    def __getitem__(self, pairs: Sequence[tuple[int, int]]) -> list[bool]:
        return [self._compare(pair) for pair in pairs]

    def _compare(self, pair: tuple[int, int]) -> bool:
        try:
            return are_alike(*[image(*items[place], codec) for (codec, items), place in zip(self.sides, pair)])
        except UserError:
            return False  # one of them was there a moment ago
