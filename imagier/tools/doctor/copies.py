"""Duplicate images: those with the same pixels, and resized or compressed copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch.utils.data import Dataset

from imagier.errors import UserError
from imagier.run.progress import Update
from imagier.tools.doctor.file_stats import LUMA_PX, compute_luma, load_image
from imagier.tools.doctor.file_table import FileTable
from imagier.tools.doctor.reading import FILES_AT_ONCE, map_in_parallel

CANDIDATES = 8
"""How many nearest images of the other set an image is compared with."""

# How far a copy may be from its original: the largest difference of brightness (of 255) among n x n cells, the mean
# difference of color among 8 x 8 cells, and the correlation of brightness. For 64 px emoji, halved in size and saved as
# JPEG of quality 50, this finds 99 of 100 copies, and takes no two different ones of 2128 for copies. Photographs of
# usual sizes change less. (tests/tools/doctor/test_copies.py)
_DIFFERENCE_4, _DIFFERENCE_8, _DIFFERENCE_16, _COLOR_8, _CORRELATION = 10, 16, 40, 12, 0.97

_CONTRAST = 8
"""Images whose brightness varies less than this all look alike; only identical pixels make them duplicates."""


@dataclass(frozen=True)
class Copies:
    """Images of one table that also occur in another."""

    table: FileTable
    other: FileTable
    pairs: np.ndarray
    """K x 2: the index of an image and that of its original in the other table. Each image occurs once."""


def find_repeated(table: FileTable) -> Copies:
    """Files with the same pixels as an earlier file of their table."""
    indices = table.readable
    digests = table.notes["digest"][indices]
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    original = first[inverse]
    copies = np.flatnonzero(original != np.arange(len(indices)))
    return Copies(table, table, np.stack([indices[copies], indices[original[copies]]], axis=1))


def find_identical(table: FileTable, other: FileTable) -> Copies:
    """Files of a table with the same pixels as a file of another table."""
    indices, theirs = table.readable, other.readable
    digests, first = np.unique(other.notes["digest"][theirs], return_index=True)
    mine = table.notes["digest"][indices]
    at = np.minimum(np.searchsorted(digests, mine), max(len(digests) - 1, 0))
    same = np.flatnonzero(digests[at] == mine) if len(digests) else np.zeros(0, np.int64)
    return Copies(table, other, np.stack([indices[same], theirs[first[at[same]]]], axis=1))


def find_similar(table: FileTable, other: FileTable, *, workers: int, update: Update) -> Copies:
    """Files of a table that look like a file of another table, but do not have the same pixels.

    The notes give the candidates; only those files are read again.
    """
    pairs = _find_candidates(table, other)
    tasks = [pairs[at : at + FILES_AT_ONCE].tolist() for at in range(0, len(pairs), FILES_AT_ONCE)]
    found: list[tuple[int, int]] = []
    done = 0
    for task, results in zip(tasks, map_in_parallel(_PairComparer(table, other), tasks, workers)):
        for (mine, theirs), is_copy in zip(task, results):
            found += [(mine, theirs)] if is_copy else []
            done += 1
            update(done, len(pairs))
    return Copies(table, other, np.array(found, np.int64).reshape(-1, 2))


def are_alike(image: np.ndarray, other: np.ndarray) -> bool:
    """Whether one of two images (H x W x C, as stored) may be a resized or compressed copy of the other."""
    differences = {side: np.abs(compute_luma(image, side) - compute_luma(other, side)).max() for side in (8, 16)}
    if differences[8] > _DIFFERENCE_8 or differences[16] > _DIFFERENCE_16:
        return False
    if image.shape[2] == other.shape[2] and image.dtype == other.dtype == np.uint8:
        mine, theirs = (cv2.resize(x, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32) for x in (image, other))
        if np.abs(mine - theirs).mean() > _COLOR_8:
            return False
    brightness = [compute_luma(x, 16).ravel() for x in (image, other)]
    if min(np.ptp(values) for values in brightness) < _CONTRAST:
        return False
    return bool(np.corrcoef(brightness)[0, 1] >= _CORRELATION)


def _find_candidates(table: FileTable, other: FileTable) -> np.ndarray:
    """K x 2: the index of an image, and that of its most similar image in the other table."""
    indices, theirs = _find_contrasted(table), _find_contrasted(other)
    if not len(indices) or not len(theirs):
        return np.zeros((0, 2), np.int64)
    from scipy.spatial import cKDTree  # slow to import

    tree = cKDTree(_compute_coarse_luma(other, theirs))
    count = min(CANDIDATES, len(theirs))
    _, found = tree.query(
        _compute_coarse_luma(table, indices), k=list(range(1, count + 1)), p=np.inf, distance_upper_bound=_DIFFERENCE_4
    )
    row, rank = np.nonzero(found < len(theirs))  # the tree marks "nothing found" by the index len(theirs)
    mine, candidates = indices[row], theirs[found[row, rank]]
    gaps = np.abs(table.notes["luma"][mine].astype(np.int16) - other.notes["luma"][candidates]).max(axis=(1, 2))
    near = gaps <= _DIFFERENCE_8
    near &= table.notes["digest"][mine] != other.notes["digest"][candidates]
    order = np.lexsort((gaps[near], mine[near]))
    mine, candidates = mine[near][order], candidates[near][order]
    _, nearest = np.unique(mine, return_index=True)
    return np.stack([mine[nearest], candidates[nearest]], axis=1)


def _find_contrasted(table: FileTable) -> np.ndarray:
    indices = table.readable
    return indices[np.ptp(table.notes["luma"][indices], axis=(1, 2)) >= _CONTRAST]


def _compute_coarse_luma(table: FileTable, indices: np.ndarray) -> np.ndarray:
    """N x 16: brightness in 4 x 4 cells."""
    half = LUMA_PX // 4
    cells = table.notes["luma"][indices].reshape(-1, 4, half, 4, half)
    return cells.mean(axis=(2, 4), dtype=np.float32).reshape(-1, 16)


class _PairComparer(Dataset):
    """Reads pairs of files and compares them."""

    def __init__(self, table: FileTable, other: FileTable) -> None:
        self.sides = [(side.codec, side.items) for side in (table, other)]

    def __getitem__(self, pairs: Sequence[tuple[int, int]]) -> list[bool]:
        return [self._compare(pair) for pair in pairs]

    def _compare(self, pair: tuple[int, int]) -> bool:
        try:
            return are_alike(*[load_image(*items[index], codec) for (codec, items), index in zip(self.sides, pair)])
        except UserError:
            return False  # it was readable a moment ago
