"""Pictures of several types that belong together by name: label maps and the photographs that they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from imagier.data.augment import Augmenter, original_size
from imagier.data.sample import InputType, Number, Sample, load, random_source
from imagier.data.source import Source, unique_names
from imagier.errors import UserError

Key = tuple[int, int]
"""(epoch, index): all that the augmentation of a sample depends on, beside the seed."""


class Dataset:
    """All samples of a split, from one or several roots, in the order of the roots and of the names in them."""

    classes: ClassVar[Sequence[str]] = ()

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
    ) -> None:
        """training: the same here, sample `index` is always the same files. UserError if one lacks a picture."""
        self.input_types = input_types
        self.use_dont_care = use_dont_care
        self.seed = seed
        masks = [kind.name for kind in input_types if kind.is_mask]
        self.augmenter = Augmenter(augmentations, masks, interpolator)
        self.items = [(source, key) for source in sources for key in _paired_keys(source, input_types)]
        self.names = unique_names(key for _, key in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key) -> Sample:
        """The sample `index`, augmented as in epoch `epoch`."""
        epoch, index = key
        arrays = self.load(index)
        try:
            augmented = self.augmenter(arrays, random_source(self.seed, epoch, index))
        except UserError as error:
            raise UserError(f"{self.where(index)}: {error}") from error
        numbers: dict[str, Number] = {"original_h_w": original_size(arrays), "is_flipped": augmented.is_flipped}
        numbers |= {f"original_h_w_{name}": array.shape[:2] for name, array in arrays.items()}
        return Sample(augmented.images, dict.fromkeys(augmented.images, self.names[index]), numbers)

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The pictures of a sample as stored, checked. UserError with the name of a file that is wrong."""
        source, key = self.items[index]
        return {kind.name: load(source, kind, key, self.use_dont_care) for kind in self.input_types}

    def where(self, index: int) -> str:
        """What to call a sample in a message: the file of its first type."""
        source, key = self.items[index]
        return source.where(self.input_types[0].name, key)


def _paired_keys(source: Source, input_types: Sequence[InputType]) -> list[str]:
    """The keys of the first type, each of which every other type must have too."""
    first, *others = [kind.name for kind in input_types]
    keys = source.keys(first)
    for name in others:
        there = set(source.keys(name))
        missing = [key for key in keys if key not in there]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(
                f"{source.where(first, missing[0])}: has no partner {source.where(name, missing[0])}{more}; "
                "add it or remove the file"
            )
    return keys
