"""Whether pictures of the sizes that a set holds can be augmented, and whether a batch can hold what comes out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imagier.data.augment import Augmenter
from imagier.data.doctor.column import Column, Part, partners
from imagier.data.warp import Size
from imagier.errors import UserError

DRAWS = 6
"""Some augmentations turn a picture, or make it larger, now and then."""


@dataclass(frozen=True)
class Samples:
    """What one augmentation is drawn for: a picture, or in a paired set the pictures of a sample together."""

    column: Column
    """The column of the pictures, or of the first one of each sample."""
    places: np.ndarray
    """Of the samples whose files could all be read."""
    sizes: np.ndarray
    """len(places) x 2, height and width: the largest of each among the pictures of a sample."""


@dataclass(frozen=True)
class Outcome:
    """What becomes of pictures of one size."""

    sizes: frozenset[Size]
    message: str = ""
    """Why they cannot be augmented."""


def samples(part: Part, columns: Sequence[Column]) -> list[Samples]:
    """All that is augmented in a part."""
    if not part.paired:
        return [Samples(column, column.seen, _sizes(column, column.seen)) for column in columns]
    first = columns[0]
    good = np.zeros(len(first), bool)
    good[first.seen] = True
    sizes = _sizes(first, np.arange(len(first)))
    for other in partners(columns):
        there = np.zeros(len(other.column) + 1, bool)  # the last one, at -1, stands for a partner that is missing
        there[other.column.seen] = True
        good &= there[other.places]
        sizes = np.maximum(sizes, _sizes(other.column, other.places))
    places = np.flatnonzero(good)
    return [Samples(first, places, sizes[places])]


def outcomes(part: Part, sizes: np.ndarray) -> tuple[list[Outcome], np.ndarray]:
    """What becomes of N x 2 sizes: of every different one, and which of these each is. Augmentations are tried."""
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    augmenter = Augmenter(part.augmentations, [], part.interpolator)
    return [_outcome(augmenter, size) for size in map(tuple, different.tolist())], which.ravel()


def _outcome(augmenter: Augmenter, size: Size) -> Outcome:
    try:
        return Outcome(frozenset(augmenter.draw(size, random.Random(draw)).size for draw in range(DRAWS)))
    except UserError as error:
        return Outcome(frozenset(), str(error))


def _sizes(column: Column, places: np.ndarray) -> np.ndarray:
    return np.stack([column.notes[side][places] for side in ("height", "width")], axis=1)
