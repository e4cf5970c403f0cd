"""Images of several types that belong together by name: label maps and the photographs that they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from imagier.data.augmentation.augment import Augmenter, largest
from imagier.data.augmentation.warp import Size
from imagier.data.decoding.sample import InputType, Number, Sample, Stored, load_stored, random_source
from imagier.data.listing.items import Items, blocks
from imagier.data.sources.keys import Keys
from imagier.data.sources.source import Source
from imagier.errors import UserError

Key = tuple[int, int]
"""(epoch, index): all that the augmentation of a sample depends on, beside the seed."""


class Dataset:
    """All samples of a split, from one or several roots, in the order of the roots and of the names in them.

    Key points are in the pixels of the type `image`, or else of the first type of images, and move as these do.
    """

    paired: ClassVar[bool] = True
    """Files of all types belong together by name."""
    classes: ClassVar[Sequence[str]] = ()
    reads_points: ClassVar[bool] = True
    """Types may be key points."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        input_types: Sequence[InputType],
        augmentations: Mapping[str, Any],
        interpolator: str = "INTER_LINEAR",
        use_dont_care: bool = False,
        training: bool = False,
        seed: int = 0,
        root_weights: Sequence[float] | None = None,
        reduced_jpeg: bool = False,
    ) -> None:
        """training: without root_weights the same here, sample `index` is always the same files; with them it is drawn.

        UserError if a sample lacks an image.
        """
        self.input_types = input_types
        self.use_dont_care = use_dont_care
        self.seed = seed
        self.draws = training and root_weights is not None
        self.reduced_jpeg = reduced_jpeg
        self.images = [kind.name for kind in input_types if not kind.is_points]
        masks = [kind.name for kind in input_types if kind.is_mask]
        self.augmenter = Augmenter(augmentations, masks, interpolator)
        self.items = Items(sources, [paired_keys(source, input_types) for source in sources], root_weights)
        self.blocks = [len(self)] if self.draws else blocks(sources, input_types[0].name, len(self))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> Keys:
        """What each sample is called where its images are written."""
        return self.items.names

    def __getitem__(self, key: Key) -> Sample:
        """The sample `index`, augmented as in epoch `epoch`."""
        epoch, index = key
        rng = random_source(self.seed, epoch, index)
        place = self.items.draw(rng) if self.draws else index
        stored = self._stored(place, reduced=self.reduced_jpeg)
        sizes = {name: stored[name].size for name in self.images}
        original = largest(sizes.values())
        try:
            drawn = self.augmenter.draw(original, rng)
            arrays = {
                name: drawn.apply(name, each.array, each.extent)
                if name in sizes
                else drawn.points(each.array, sizes["image" if "image" in sizes else self.images[0]])
                for name, each in stored.items()
            }
        except UserError as error:
            raise error.at(self.where(place)) from error
        numbers: dict[str, Number] = {"original_h_w": original, "is_flipped": drawn.is_flipped}
        numbers |= {f"original_h_w_{name}": size for name, size in sizes.items()}
        return Sample(arrays, dict.fromkeys(arrays, self.names[place]), numbers)

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The images H x W x C and key points P x D of a sample as stored, checked. UserError names a wrong file."""
        return {name: each.array for name, each in self._stored(index).items()}

    def where(self, index: int) -> str:
        """What to call a sample in a message: the file of its first type."""
        source, key = self.items[index]
        return source.where(self.input_types[0].name, key)

    def _stored(self, place: int, reduced: bool = False) -> dict[str, Stored]:
        source, key = self.items[place]
        needed = self.augmenter.needed_size if reduced else None
        stored = load_stored(source, self.input_types, key, self.use_dont_care, needed)
        check_orientation({name: stored[name].size for name in self.images}, lambda name: source.where(name, key))
        return stored


def check_orientation(sizes: Mapping[str, Size], where: Callable[[str], str]) -> None:
    """UserError if one image of a sample lies on its side. where: what to call that of a type."""
    first, size = next(iter(sizes.items()), ("", (0, 0)))
    for name, other in sizes.items():
        if other == size[::-1] and size[0] != size[1]:
            raise UserError(
                (
                    f"is {other[0]} x {other[1]}, but its partner {where(first)} is {size[0]} x {size[1]}: one of them "
                    "lies on its side, perhaps by the orientation that its file tells (EXIF)"
                ),
                where=where(name),
                advice="store both alike",
            )


def paired_keys(source: Source, input_types: Sequence[InputType]) -> list[str]:
    """The keys of the first type, each of which every other type must have too."""
    first, *others = [kind.name for kind in input_types]
    keys = source.keys(first)
    for name in others:
        there = set(source.keys(name))
        missing = [key for key in keys if key not in there]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(
                f"has no partner {source.where(name, missing[0])}{more}",
                where=source.where(first, missing[0]),
                advice="add it or remove the file",
            )
    return keys
