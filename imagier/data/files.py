"""The files of one input type where each stands for itself: what data sets without pairs are made of."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagier.data.augment import Augmenter
from imagier.data.sample import InputType, Number, Sample, load
from imagier.data.source import Source, unique_names
from imagier.errors import UserError


class Files:
    """All files of a type, in the order of the roots and of the names in them, and what is done to each."""

    def __init__(
        self,
        sources: Sequence[Source],
        kind: InputType,
        *,
        augmentations: Mapping[str, Any],
        interpolator: str,
        use_dont_care: bool,
    ) -> None:
        self.kind = kind
        self.use_dont_care = use_dont_care
        self.augmenter = Augmenter(augmentations, [kind.name] if kind.is_mask else [], interpolator)
        self.items = [(source, key) for source in sources for key in source.keys(kind.name)]
        self.names = unique_names(key for _, key in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def load(self, place: int) -> np.ndarray:
        """A picture H x W x C as stored, checked. UserError with the name of the file if it is wrong."""
        source, key = self.items[place]
        return load(source, self.kind, key, self.use_dont_care)

    def augmented(self, place: int, rng: random.Random) -> tuple[np.ndarray, dict[str, Number]]:
        """A picture changed by draws of its own, and what is then known of it: is it mirrored, how large was it."""
        array = self.load(place)
        try:
            augmented = self.augmenter({self.kind.name: array}, rng)
        except UserError as error:
            source, key = self.items[place]
            raise UserError(f"{source.where(self.kind.name, key)}: {error}") from error
        name = self.kind.name
        numbers: dict[str, Number] = {f"is_flipped_{name}": augmented.is_flipped}
        numbers[f"original_h_w_{name}"] = array.shape[:2]
        return augmented.images[name], numbers

    def class_name(self, place: int) -> str:
        """The outermost folder of a file, which names its class; "." for files right under the type."""
        return self.items[place][1].split("/")[0]


def files_by_type(sources: Sequence[Source], input_types: Sequence[InputType], **options: Any) -> dict[str, Files]:
    """The files of every type, in the order of the types, which is also the order of their draws."""
    return {kind.name: Files(sources, kind, **options) for kind in input_types}


def sample_of(files: Mapping[str, Files], places: Mapping[str, int], rng: random.Random, **labels: int) -> Sample:
    """One file of each type, each changed by draws of its own, type after type. labels: numbers of classes."""
    pictures = {name: of_type.augmented(places[name], rng) for name, of_type in files.items()}
    return Sample(
        {name: array for name, (array, _) in pictures.items()},
        {name: of_type.names[places[name]] for name, of_type in files.items()},
        {**{key: number for _, numbers in pictures.values() for key, number in numbers.items()}, **labels},
    )


def stored(files: Mapping[str, Files], index: int, length: int) -> dict[str, np.ndarray]:
    """One picture of each type as stored, checked: as far along in its list as `index` is in `length`.

    From 0 to `length`, the longest list's, this comes by every file. UserError with the name of a file that is wrong.
    """
    return {name: of_type.load(index * len(of_type) // length) for name, of_type in files.items()}
