"""The files of several roots as one list, and the files of one input type, each augmented by itself."""

from __future__ import annotations

import random
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from imagier.data.augmentation.augment import Augmenter
from imagier.data.codec import Codec
from imagier.data.dataset import DatasetSpec
from imagier.data.decoding.decode import EncodedFile
from imagier.data.sample import Number, Sample, load_stored
from imagier.data.sources.keys import Keys
from imagier.data.sources.source import Source, unique_names
from imagier.errors import UserError


class FileList:
    """Files in the order of the roots and, within a root, of its keys. Forked processes read it without copying it."""

    def __init__(
        self, sources: Sequence[Source], keys: Sequence[Sequence[str]], root_weights: Sequence[float] | None = None
    ) -> None:
        """keys: those of each source. root_weights: how often a file of each is drawn; None draws all files alike."""
        self.sources = sources
        self.keys = [Keys(of_source) for of_source in keys]
        self.starts = list(accumulate(map(len, self.keys), initial=0))
        self.odds = None if root_weights is None else list(accumulate(root_weights))
        self.names = self.keys[0] if len(keys) == 1 else Keys(unique_names(key for each in keys for key in each))
        """One for every file, none twice."""

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> tuple[Source, str]:
        root = bisect_right(self.starts, index) - 1
        return self.sources[root], self.keys[root][index - self.starts[root]]

    def draw(self, rng: random.Random) -> int:
        """The index of a random file: all alike, or first a root by its weight, and then all its files alike."""
        if self.odds is None:
            return rng.choice(range(len(self)))
        root = min(bisect_right(self.odds, rng.random() * self.odds[-1]), len(self.odds) - 1)
        return rng.choice(range(self.starts[root], self.starts[root + 1]))


def list_shard_lengths(sources: Sequence[Source], input_type: str, length: int) -> list[int]:
    """How many files of a type lie in each shard, over all sources; where there are no shards, `length`, of all."""
    lengths = [count for source in sources for count in source.shards(input_type)]
    return lengths if len(lengths) > len(sources) else [length]


class Files:
    """All files of an input type, in the order of the roots and of the names in them; each is augmented by itself."""

    def __init__(self, spec: DatasetSpec, codec: Codec) -> None:
        """UserError if a source lacks the type."""
        self.codec = codec
        self.augmenter = Augmenter(spec.augmentations, spec.interpolator)
        self.needed = self.augmenter.compute_needed_size if spec.reduced_jpeg else None
        keys = [source.keys(codec.name) for source in spec.sources]
        self.list = FileList(spec.sources, keys, spec.root_weights)
        self.names = self.list.names

    def __len__(self) -> int:
        return len(self.list)

    def load(self, index: int) -> np.ndarray:
        """An image H x W x C as stored, checked. UserError with the name of the file if it is wrong."""
        source, key = self.list[index]
        return self.codec.load(EncodedFile.read(source, self.codec.name, key)).array

    def load_augmented(self, index: int, rng: random.Random) -> tuple[np.ndarray, dict[str, Number]]:
        """An image changed by draws of its own, and the numbers `is_flipped_<type>` and `original_h_w_<type>`."""
        source, key = self.list[index]
        name = self.codec.name
        stored = load_stored(source, [self.codec], key, self.needed)[name]
        try:
            drawn = self.augmenter.draw(stored.size, rng)
            array = self.codec.augment(stored, drawn)
        except UserError as error:
            raise error.at(source.where(name, key)) from error
        return array, {f"is_flipped_{name}": drawn.is_flipped, f"original_h_w_{name}": stored.size}

    def draw(self, rng: random.Random) -> int:
        """The index of a random file."""
        return self.list.draw(rng)

    def class_names(self) -> list[str]:
        """The outermost folder of every file, which names its class; "." for files right under the type."""
        return [sys.intern(key.partition("/")[0]) for keys in self.list.keys for key in keys]


def number_classes(names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The classes of files: their names, sorted, and the index of each file's class among them, int32."""
    classes = sorted(set(names))
    number = {name: i for i, name in enumerate(classes)}
    return classes, np.array([number[name] for name in names], np.int32)


def make_files(spec: DatasetSpec) -> dict[str, Files]:
    """The files of every input type, in the order of the types, which is also the order of their draws."""
    return {codec.name: Files(spec, codec) for codec in spec.codecs}


def make_sample(files: Mapping[str, Files], indices: Mapping[str, int], rng: random.Random, **labels: int) -> Sample:
    """One file of each type, each changed by draws of its own, type after type. labels: numbers of classes."""
    images = {name: of_type.load_augmented(indices[name], rng) for name, of_type in files.items()}
    return Sample(
        {name: array for name, (array, _) in images.items()},
        {name: of_type.names[indices[name]] for name, of_type in files.items()},
        {**{key: number for _, numbers in images.values() for key, number in numbers.items()}, **labels},
    )


def load_each(files: Mapping[str, Files], index: int, length: int) -> dict[str, np.ndarray]:
    """One image of each type as stored, checked: as far along in its list as `index` is in `length`.

    From 0 to `length`, the longest list's, this comes by every file. UserError with the name of a file that is wrong.
    """
    return {name: of_type.load(index * len(of_type) // length) for name, of_type in files.items()}
