"""Files of several input types that belong together by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from imagier.data.augmentation.warp import Size
from imagier.data.codec import Codec, Stored
from imagier.data.sample import image_sizes
from imagier.data.sources.source import Source
from imagier.errors import UserError


def list_paired_keys(source: Source, input_types: Sequence[str]) -> list[str]:
    """The keys of the first type. UserError if another type lacks one of them."""
    first, *others = input_types
    keys = source.keys(first)
    for name in others:
        known = set(source.keys(name))
        missing = [key for key in keys if key not in known]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(
                f"has no partner {source.where(name, missing[0])}{more}",
                where=source.where(first, missing[0]),
                advice="add it or remove the file",
                code="missing-partner",
            )
    return keys


def fit_together(
    stored: Mapping[str, Stored], codecs: Sequence[Codec], where: Callable[[str], str]
) -> dict[str, Stored]:
    """The files of a sample, after a check of their orientation. where: what to call the file of an input type.

    What has no pixels gets the size of the image that it lies in: that of the type `image`, or else the first one's.
    """
    sizes = image_sizes(stored, codecs)
    check_orientation(sizes, where)
    if len(sizes) == len(stored):
        return dict(stored)
    size = sizes["image"] if "image" in sizes else next(iter(sizes.values()))
    return {name: each if name in sizes else replace(each, size=size) for name, each in stored.items()}


def check_orientation(sizes: Mapping[str, Size], where: Callable[[str], str]) -> None:
    """UserError if one image of a sample lies on its side. where: what to call the file of an input type."""
    first, size = next(iter(sizes.items()), ("", (0, 0)))
    for name, other in sizes.items():
        if other == size[::-1] and size[0] != size[1]:
            raise UserError(
                f"is {other[0]} x {other[1]}, but its partner {where(first)} is {size[0]} x {size[1]}: one of them "
                "lies on its side, perhaps because of the orientation in its EXIF data",
                where=where(name),
                advice="store both alike",
                code="wrong-orientation",
            )
