"""Faults of a split as a whole, and of splits beside each other: partners, sizes, classes, copies."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imagier.data.augmentation.augment import Augmenter
from imagier.data.augmentation.warp import Size
from imagier.data.codec import Codec
from imagier.errors import UserError
from imagier.tools.doctor.copies import Copies
from imagier.tools.doctor.file_table import FileTable, Partners, Split, partners
from imagier.tools.doctor.finding import Finding, Row, Rows, Severity, files_of, number_of, of_wrong_files

_DRAWS = 6
"""Some augmentations turn an image, or make it larger, now and then."""

_ENLARGED = 2
_STRETCHED = 1.02


def faults_of_partners(tables: Sequence[FileTable]) -> Iterator[Finding]:
    """What lacks a partner in a paired part, in both directions."""
    first = tables[0]
    for other in partners(tables):
        missing = np.flatnonzero(other.places < 0)
        if len(missing):
            yield Finding(
                Severity.ERROR,
                str(other.table),
                f"{number_of(len(missing), 'file', len(first))} of {first.codec.name} without a partner of this type",
                f"add them, or remove the files of {first.codec.name}",
                _missing(first, missing, other.table),
            )
        if len(other.left_over):
            yield Finding(
                Severity.WARNING,
                str(other.table),
                f"{number_of(len(other.left_over), 'file', len(other.table))} without a partner in {first.codec.name}, "
                "which will never be read",
                f"add those of {first.codec.name}, or remove these",
                files_of(other.table, other.left_over),
            )


def _missing(first: FileTable, places: np.ndarray, table: FileTable) -> Rows:
    def row(i: int) -> Row:
        source, key = first.items[int(places[i])]
        name = f"{source.where(table.codec.name, key)}: partner of {source.where(first.codec.name, key)}"
        return Row(name, ((first, int(places[i])),))

    return Rows(len(places), row)


def faults_of_sizes(part: Split, tables: Sequence[FileTable]) -> Iterator[Finding]:
    """Images that are too small for the augmentations, or come out of them with different sizes."""
    for group in _samples(part, tables):
        if len(group.places):
            yield from _faults_of_sizes(part, group)
    if part.paired:
        for other in partners([table for table in tables if table.codec.has_pixels]):
            yield from _shapes(tables[0], other)


def _faults_of_sizes(part: Split, group: _Samples) -> Iterator[Finding]:
    found, which = _outcomes(part, group.sizes)
    fails = np.array([bool(outcome.message) for outcome in found])
    too_small = np.flatnonzero(fails[which])
    where = group.table.part.name if part.paired else str(group.table)

    def text(place: int) -> str:
        at = int(np.searchsorted(group.places, place))
        return f"{group.table.where(place)}: {found[which[at]].message}"

    if len(too_small):
        yield Finding(
            of_wrong_files(part, len(too_small), len(group.places)),
            where,
            f"{number_of(len(too_small), 'image', len(group.places))} too small for the augmentations",
            "lower the crop, raise resize_smallest_side, or remove the images",
            files_of(group.table, group.places[too_small], text),
        )
    sizes = sorted({size for outcome in found for size in outcome.sizes if not outcome.message})
    if len(sizes) > 1 and part.batch_size > 1:
        shown = ", ".join(f"{height} x {width}" for height, width in sizes[:3])
        yield Finding(
            Severity.ERROR,
            where,
            f"augmented images have {len(sizes)} different sizes ({shown}{', ...' if len(sizes) > 3 else ''}), which "
            "no batch can hold together",
            "add a crop (random_crop_h_w or center_crop_h_w) to the augmentations, or use batch_size: 1",
        )
    yield from _enlarged(group, found, which, where)


def _enlarged(group: _Samples, found: Sequence[_Outcome], which: np.ndarray, where: str) -> Iterator[Finding]:
    made = np.array([min((min(size) for size in outcome.sizes), default=0) for outcome in found])
    small = np.flatnonzero(made[which] > _ENLARGED * group.sizes.min(axis=1))
    if len(small):

        def text(place: int) -> str:
            height, width = group.sizes[int(np.searchsorted(group.places, place))]
            return f"{group.table.where(place)}: {height} x {width}"

        yield Finding(
            Severity.WARNING,
            where,
            f"{number_of(len(small), 'image', len(group.places))} to be enlarged more than {_ENLARGED} times",
            "train at a smaller size, or remove them: blurred images teach blurred images",
            files_of(group.table, group.places[small], text),
        )


def _shapes(first: FileTable, other: Partners) -> Iterator[Finding]:
    """Partners of different shapes, which are stretched to one; and those that lie on their side, which end a run."""
    both = np.flatnonzero(other.places >= 0)
    mine, theirs = first.notes[both], other.table.notes[other.places[both]]
    known = (mine["width"] > 0) & (theirs["width"] > 0)
    lying = known & (mine["height"] == theirs["width"]) & (mine["width"] == theirs["height"])
    lying &= mine["height"] != mine["width"]
    aspects = [notes["height"] / np.maximum(notes["width"], 1) for notes in (mine, theirs)]
    ratio = np.where(known, aspects[0] / np.where(known, aspects[1], 1), 1)
    stretched = known & ~lying & (np.maximum(ratio, 1 / ratio) > _STRETCHED)
    for severity, which, what, advice in (
        (
            of_wrong_files(first.part, int(lying.sum()), len(both)),
            lying,
            "lying on their side beside",
            "store both alike; the orientation in the EXIF part of one of them may be wrong",
        ),
        (
            Severity.WARNING,
            stretched,
            "of another shape than",
            "check that they belong together: they are resized to one size, which stretches one of them",
        ),
    ):
        if which.any():
            count = number_of(int(which.sum()), "file", len(both))
            rows = _pairs(first, other, both[which])
            what = f"{count} {what} their partners in {first.codec.name}"
            yield Finding(severity, str(other.table), what, advice, rows)


def _pairs(first: FileTable, other: Partners, places: np.ndarray) -> Rows:
    def row(i: int) -> Row:
        images = (first, int(places[i])), (other.table, int(other.places[places[i]]))
        sizes = [f"{c.where(at)} ({c.notes[at]['height']} x {c.notes[at]['width']})" for c, at in images]
        return Row(" and ".join(sizes), images)

    return Rows(len(places), row)


@dataclass(frozen=True)
class _Samples:
    """What one augmentation is drawn for: an image, or in a paired set the images of a sample together."""

    table: FileTable
    """The column of the images, or of the first one of each sample."""
    places: np.ndarray
    """Of the samples whose files could all be read."""
    sizes: np.ndarray
    """len(places) x 2, height and width: the largest of each among the images of a sample."""


@dataclass(frozen=True)
class _Outcome:
    """What becomes of images of one size."""

    sizes: frozenset[Size]
    message: str = ""
    """Why they cannot be augmented."""


def _samples(part: Split, tables: Sequence[FileTable]) -> list[_Samples]:
    """All that is augmented in a part."""
    if not part.paired:
        return [_Samples(table, table.seen, _sizes(table, table.seen)) for table in tables]
    first = tables[0]
    good = np.zeros(len(first), bool)
    good[first.seen] = True
    sizes = _sizes(first, np.arange(len(first)))
    for other in partners(tables):
        there = np.zeros(len(other.table) + 1, bool)  # the last one, at -1, stands for a partner that is missing
        there[other.table.seen] = True
        good &= there[other.places]
        sizes = np.maximum(sizes, _sizes(other.table, other.places))
    places = np.flatnonzero(good)
    return [_Samples(first, places, sizes[places])]


def _outcomes(part: Split, sizes: np.ndarray) -> tuple[list[_Outcome], np.ndarray]:
    """What becomes of N x 2 sizes: of every different one, and which of these each is. Augmentations are tried."""
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    augmenter = Augmenter(part.augmentations, part.interpolator)
    return [_outcome(augmenter, size) for size in map(tuple, different.tolist())], which.ravel()


def _outcome(augmenter: Augmenter, size: Size) -> _Outcome:
    try:
        return _Outcome(frozenset(augmenter.draw(size, random.Random(draw)).size for draw in range(_DRAWS)))
    except UserError as error:
        return _Outcome(frozenset(), str(error))


def _sizes(table: FileTable, places: np.ndarray) -> np.ndarray:
    if not table.codec.has_pixels:
        return np.zeros((len(places), 2), table.notes["height"].dtype)
    return np.stack([table.notes[side][places] for side in ("height", "width")], axis=1)


def faults_of_classes(train: FileTable, held_out: Sequence[FileTable]) -> Iterator[Finding]:
    """Classes that the config knows and the maps do not, and classes that are held out, but never seen in training.

    Nothing is said of a training set of which only a part was read: the others may hold them.
    """
    count = train.codec.num_classes
    if count is None or not len(train.seen) or train.looked_at < len(train):
        return
    there = _classes_in(train, train.codec)
    absent = np.flatnonzero(~there)
    if len(absent):
        yield Finding(
            Severity.WARNING,
            str(train),
            f"{number_of(len(absent), 'class', count)} in none of the {len(train.seen):,} maps: {_ranges(absent)}",
            f"check the maps, or lower one_hot_num_classes.{train.codec.name}; each class costs a channel",
        )
    for table in held_out:
        new = np.flatnonzero(_classes_in(table, train.codec) & ~there)
        if len(new):
            yield Finding(
                Severity.WARNING,
                str(table),
                f"{number_of(len(new), 'class')} not seen in training: {_ranges(new)}",
                "move some of these files to the training set, or expect nothing for these classes",
            )


def _classes_in(table: FileTable, codec: Codec) -> np.ndarray:
    """Which classes the maps of a column hold, after the op move_dont_care."""
    count, nothing = codec.num_classes or 0, codec.input_type.dont_care
    there = table.files[:count] > 0
    if nothing is not None and nothing < count:
        there[nothing] = table.files[nothing:].any()
        there[nothing + 1 :] = False
    return there


def faults_of_copies(copies: Copies, *, exact: bool) -> Iterator[Finding]:
    """Images that are there twice."""
    if not len(copies.pairs):
        return
    inside = copies.table is copies.other
    looks = "the same pixels as" if exact else "the look of"

    def row(i: int) -> Row:
        mine, theirs = map(int, copies.pairs[i])
        text = f"{copies.table.where(mine)} {'=' if exact else '≈'} {copies.other.where(theirs)}"
        return Row(text, ((copies.table, mine), (copies.other, theirs)))

    yield Finding(
        Severity.WARNING,
        str(copies.table),
        f"{number_of(len(copies.pairs), 'image', len(copies.table.seen))} with {looks} one "
        + ("before" if inside else f"of {copies.other.part.name}"),
        "remove them, unless they are meant to count more"
        if inside
        else f"remove them from one of the two: what {copies.other.part.name} has shown, {copies.table.part.name} "
        "cannot test",
        Rows(len(copies.pairs), row),
    )


def _ranges(ids: np.ndarray) -> str:
    """ "0, 4-7, 9"."""
    groups = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    shown = [str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups]
    return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "")
