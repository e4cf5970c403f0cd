"""Faults of whole splits, and between splits: partners, sizes, classes, copies."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imagier.data.augmentation.augment import Augmenter
from imagier.data.augmentation.warp import Size
from imagier.data.codec import Codec
from imagier.data.doubts import find_without_class
from imagier.errors import UserError
from imagier.tools.doctor.copies import Copies
from imagier.tools.doctor.file_table import FileTable, Partners, Split, match_partners
from imagier.tools.doctor.finding import Finding, Row, Rows, Severity, format_count, make_rows, rate_wrong_files

_DRAWS = 6
"""Number of random draws to try: some augmentations rotate or enlarge an image only sometimes."""

_ENLARGED = 2
_STRETCHED = 1.02


def find_partner_faults(tables: Sequence[FileTable]) -> Iterator[Finding]:
    """Files without a partner in a paired split, in both directions."""
    first = tables[0]
    for other in match_partners(tables):
        missing = np.flatnonzero(other.indices < 0)
        if len(missing):
            yield Finding(
                Severity.ERROR,
                str(other.table),
                f"{format_count(len(missing), 'file', len(first))} of {first.codec.name} "
                "without a partner of this type",
                f"add them, or remove the files of {first.codec.name}",
                _make_missing_rows(first, missing, other.table),
            )
        if len(other.left_over):
            yield Finding(
                Severity.WARNING,
                str(other.table),
                f"{format_count(len(other.left_over), 'file', len(other.table))} without a partner in "
                f"{first.codec.name}, which will never be read",
                f"add those of {first.codec.name}, or remove these",
                make_rows(other.table, other.left_over),
            )


def _make_missing_rows(first: FileTable, indices: np.ndarray, table: FileTable) -> Rows:
    def row(i: int) -> Row:
        source, key = first.items[int(indices[i])]
        name = f"{source.where(table.codec.name, key)}: partner of {source.where(first.codec.name, key)}"
        return Row(name, ((first, int(indices[i])),))

    return Rows(len(indices), row)


def find_size_faults(split: Split, tables: Sequence[FileTable]) -> Iterator[Finding]:
    """Images too small for the augmentations, images that end up in different sizes, partners of different shapes."""
    for group in _group_samples(split, tables):
        if len(group.indices):
            yield from _find_group_faults(split, group)
    if split.is_paired:
        for other in match_partners([table for table in tables if table.codec.has_pixels]):
            yield from _find_shape_faults(tables[0], other)


def _find_group_faults(split: Split, group: _SampleGroup) -> Iterator[Finding]:
    outcomes, which = _try_augmentations(split, group.sizes)
    fails = np.array([bool(outcome.message) for outcome in outcomes])
    too_small = np.flatnonzero(fails[which])
    where = group.table.split.name if split.is_paired else str(group.table)

    def text(index: int) -> str:
        at = int(np.searchsorted(group.indices, index))
        return f"{group.table.where(index)}: {outcomes[which[at]].message}"

    if len(too_small):
        yield Finding(
            rate_wrong_files(split, len(too_small), len(group.indices)),
            where,
            f"{format_count(len(too_small), 'image', len(group.indices))} too small for the augmentations",
            "lower the crop, raise resize_smallest_side, or remove the images",
            make_rows(group.table, group.indices[too_small], text),
        )
    sizes = sorted({size for outcome in outcomes for size in outcome.sizes if not outcome.message})
    if len(sizes) > 1 and split.batch_size > 1 and not split.is_cut:
        shown = ", ".join(f"{height} x {width}" for height, width in sizes[:3])
        yield Finding(
            Severity.ERROR,
            where,
            f"augmented images have {len(sizes)} different sizes ({shown}{', ...' if len(sizes) > 3 else ''}), which "
            "no batch can hold together",
            "add a crop (random_crop_h_w or center_crop_h_w) to the augmentations, or use batch_size: 1",
        )
    yield from _find_enlarged(group, outcomes, which, where)


def _find_enlarged(
    group: _SampleGroup, outcomes: Sequence[_Outcome], which: np.ndarray, where: str
) -> Iterator[Finding]:
    smallest = np.array([min((min(size) for size in outcome.sizes), default=0) for outcome in outcomes])
    small = np.flatnonzero(smallest[which] > _ENLARGED * group.sizes.min(axis=1))
    if len(small):

        def text(index: int) -> str:
            height, width = group.sizes[int(np.searchsorted(group.indices, index))]
            return f"{group.table.where(index)}: {height} x {width}"

        yield Finding(
            Severity.WARNING,
            where,
            f"{format_count(len(small), 'image', len(group.indices))} to be enlarged more than {_ENLARGED} times",
            "train at a smaller size, or remove them: blurred images teach blurred images",
            make_rows(group.table, group.indices[small], text),
        )


def _find_shape_faults(first: FileTable, other: Partners) -> Iterator[Finding]:
    """Partners of different aspect ratios, which get stretched; and those rotated by 90 degrees, which stop a run."""
    both = np.flatnonzero(other.indices >= 0)
    mine, theirs = first.notes[both], other.table.notes[other.indices[both]]
    known = (mine["width"] > 0) & (theirs["width"] > 0)
    rotated = known & (mine["height"] == theirs["width"]) & (mine["width"] == theirs["height"])
    rotated &= mine["height"] != mine["width"]
    aspects = [notes["height"] / np.maximum(notes["width"], 1) for notes in (mine, theirs)]
    ratio = np.where(known, aspects[0] / np.where(known, aspects[1], 1), 1)
    stretched = known & ~rotated & (np.maximum(ratio, 1 / ratio) > _STRETCHED)
    for severity, which, what, advice in (
        (
            rate_wrong_files(first.split, int(rotated.sum()), len(both)),
            rotated,
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
            count = format_count(int(which.sum()), "file", len(both))
            rows = _make_pair_rows(first, other, both[which])
            what = f"{count} {what} their partners in {first.codec.name}"
            yield Finding(severity, str(other.table), what, advice, rows)


def _make_pair_rows(first: FileTable, other: Partners, indices: np.ndarray) -> Rows:
    def row(i: int) -> Row:
        images = (first, int(indices[i])), (other.table, int(other.indices[indices[i]]))
        sizes = [f"{c.where(at)} ({c.notes[at]['height']} x {c.notes[at]['width']})" for c, at in images]
        return Row(" and ".join(sizes), images)

    return Rows(len(indices), row)


@dataclass(frozen=True)
class _SampleGroup:
    """Images that are augmented one by one, or in a paired set together with their partners."""

    table: FileTable
    """The table of the images, or of the first image of each sample."""
    indices: np.ndarray
    """The samples whose files could all be read."""
    sizes: np.ndarray
    """len(indices) x 2: the largest height and the largest width in each sample."""


@dataclass(frozen=True)
class _Outcome:
    """The result of augmenting images of one size."""

    sizes: frozenset[Size]
    message: str = ""
    """The error, if they cannot be augmented."""


def _group_samples(split: Split, tables: Sequence[FileTable]) -> list[_SampleGroup]:
    """The images of a split, grouped as they are augmented."""
    if not split.is_paired:
        return [_SampleGroup(table, table.readable, _get_sizes(table, table.readable)) for table in tables]
    first = tables[0]
    good = np.zeros(len(first), bool)
    good[first.readable] = True
    sizes = _get_sizes(first, np.arange(len(first)))
    for other in match_partners(tables):
        there = np.zeros(len(other.table) + 1, bool)  # index -1 stands for a missing partner
        there[other.table.readable] = True
        good &= there[other.indices]
        sizes = np.maximum(sizes, _get_sizes(other.table, other.indices))
    indices = np.flatnonzero(good)
    return [_SampleGroup(first, indices, sizes[indices])]


def _try_augmentations(split: Split, sizes: np.ndarray) -> tuple[list[_Outcome], np.ndarray]:
    """N x 2 sizes -> the outcome of augmenting each distinct size, and the index of each input's outcome."""
    distinct, which = np.unique(sizes, axis=0, return_inverse=True)
    augmenter = Augmenter(split.augmentations, split.interpolator)
    return [_try_augmentation(augmenter, size) for size in map(tuple, distinct.tolist())], which.ravel()


def _try_augmentation(augmenter: Augmenter, size: Size) -> _Outcome:
    try:
        return _Outcome(frozenset(augmenter.draw(size, random.Random(draw)).size for draw in range(_DRAWS)))
    except UserError as error:
        return _Outcome(frozenset(), str(error))


def _get_sizes(table: FileTable, indices: np.ndarray) -> np.ndarray:
    if not table.codec.has_pixels:
        return np.zeros((len(indices), 2), table.notes["height"].dtype)
    return np.stack([table.notes[side][indices] for side in ("height", "width")], axis=1)


def find_class_faults(train: FileTable, held_out: Sequence[FileTable]) -> Iterator[Finding]:
    """Classes of the config that occur in no training map, and held-out classes that training never sees.

    Finds nothing if only a part of the training maps was read: the rest may hold these classes.
    """
    count = train.codec.num_classes
    if count is None or not len(train.readable) or train.num_opened < len(train):
        return
    there = _find_classes(train, train.codec)
    absent = np.flatnonzero(~there)
    if len(absent):
        yield Finding(
            Severity.WARNING,
            str(train),
            f"{format_count(len(absent), 'class', count)} in none of the {len(train.readable):,} maps: "
            f"{_format_ranges(absent)}",
            _advise_about_absent(train, absent, count),
        )
    for table in held_out:
        new = np.flatnonzero(_find_classes(table, train.codec) & ~there)
        if len(new):
            yield Finding(
                Severity.WARNING,
                str(table),
                f"{format_count(len(new), 'class')} not seen in training: {_format_ranges(new)}",
                "move some of these files to the training set, or expect nothing for these classes",
            )


def _advise_about_absent(train: FileTable, absent: np.ndarray, count: int) -> str:
    """To lower the number of classes helps only if the last ones are absent, and if all pixels have a class."""
    doubt = find_without_class(train.codec, train.pixels)
    least = count - len(absent)
    if doubt is not None and doubt.advice:
        return "check the maps: the pixels that have no class may be those of these classes"
    if least > 0 and absent[0] == least:
        name = train.codec.name
        return f"check the maps, or lower one_hot_num_classes.{name} to {least}; each class costs a channel"
    return "check the maps; each class costs a channel"


def _find_classes(table: FileTable, codec: Codec) -> np.ndarray:
    """Which classes occur in the maps of a table, after the op move_dont_care."""
    count, nothing = codec.num_classes or 0, codec.input_type.dont_care
    there = table.files[:count] > 0
    if nothing is not None and nothing < count:
        there[nothing] = table.files[nothing:].any()
        there[nothing + 1 :] = False
    return there


def report_copies(copies: Copies, *, exact: bool) -> Iterator[Finding]:
    """Duplicate images."""
    if not len(copies.pairs):
        return
    is_same_table = copies.table is copies.other
    looks = "the same pixels as" if exact else "the look of"

    def row(i: int) -> Row:
        mine, theirs = map(int, copies.pairs[i])
        text = f"{copies.table.where(mine)} {'=' if exact else '≈'} {copies.other.where(theirs)}"
        return Row(text, ((copies.table, mine), (copies.other, theirs)))

    yield Finding(
        Severity.WARNING,
        str(copies.table),
        f"{format_count(len(copies.pairs), 'image', len(copies.table.readable))} with {looks} one "
        + ("before" if is_same_table else f"of {copies.other.split.name}"),
        "remove them, unless they are meant to count more"
        if is_same_table
        else f"remove them from one of the two: what {copies.other.split.name} has shown, {copies.table.split.name} "
        "cannot test",
        Rows(len(copies.pairs), row),
    )


def _format_ranges(ids: np.ndarray) -> str:
    """ "0, 4-7, 9"."""
    groups = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    shown = [str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups]
    return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "")
