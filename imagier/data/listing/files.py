"""The files of one input type where each stands for itself: what data sets without pairs are made of."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagier.data.augmentation.augment import Augmenter
from imagier.data.decoding.sample import InputType, Number, Sample, load, load_stored
from imagier.data.listing.items import Items
from imagier.data.sources.source import Source
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
        root_weights: Sequence[float] | None = None,
        reduced_jpeg: bool = False,
    ) -> None:
        self.kind = kind
        self.use_dont_care = use_dont_care
        self.augmenter = Augmenter(augmentations, [kind.name] if kind.is_mask else [], interpolator)
        self.needed = self.augmenter.needed_size if reduced_jpeg else None
        self.items = Items(sources, [source.keys(kind.name) for source in sources], root_weights)
        self.names = self.items.names

    def __len__(self) -> int:
        return len(self.items)

    def load(self, place: int) -> np.ndarray:
        """An image H x W x C as stored, checked. UserError with the name of the file if it is wrong."""
        source, key = self.items[place]
        return load(source, self.kind, key, self.use_dont_care)

    def augmented(self, place: int, rng: random.Random) -> tuple[np.ndarray, dict[str, Number]]:
        """An image changed by draws of its own, and what is then known of it: is it mirrored, how large was it."""
        source, key = self.items[place]
        name = self.kind.name
        stored = load_stored(source, [self.kind], key, self.use_dont_care, self.needed)[name]
        try:
            drawn = self.augmenter.draw(stored.size, rng)
            array = drawn.apply(name, stored.array, stored.extent)
        except UserError as error:
            raise error.at(source.where(name, key)) from error
        return array, {f"is_flipped_{name}": drawn.is_flipped, f"original_h_w_{name}": stored.size}

    def draw(self, rng: random.Random) -> int:
        """The place of a random file."""
        return self.items.draw(rng)

    def class_names(self) -> list[str]:
        """The outermost folder of every file, which names its class; "." for files right under the type."""
        return [sys.intern(key.partition("/")[0]) for keys in self.items.keys for key in keys]


def numbered(names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """The place of each name among the classes, int32."""
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in names], np.int32)


def files_by_type(sources: Sequence[Source], input_types: Sequence[InputType], **options: Any) -> dict[str, Files]:
    """The files of every type, in the order of the types, which is also the order of their draws."""
    return {kind.name: Files(sources, kind, **options) for kind in input_types}


def sample_of(files: Mapping[str, Files], places: Mapping[str, int], rng: random.Random, **labels: int) -> Sample:
    """One file of each type, each changed by draws of its own, type after type. labels: numbers of classes."""
    images = {name: of_type.augmented(places[name], rng) for name, of_type in files.items()}
    return Sample(
        {name: array for name, (array, _) in images.items()},
        {name: of_type.names[places[name]] for name, of_type in files.items()},
        {**{key: number for _, numbers in images.values() for key, number in numbers.items()}, **labels},
    )


def stored(files: Mapping[str, Files], index: int, length: int) -> dict[str, np.ndarray]:
    """One image of each type as stored, checked: as far along in its list as `index` is in `length`.

    From 0 to `length`, the longest list's, this comes by every file. UserError with the name of a file that is wrong.
    """
    return {name: of_type.load(index * len(of_type) // length) for name, of_type in files.items()}
