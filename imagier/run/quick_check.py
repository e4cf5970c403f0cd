"""A quick look at a data set before a run: what is wrong with it in one line each."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence

import numpy as np

from imagier.data.codec import Codec
from imagier.data.dataset import Dataset
from imagier.data.doubts import find_unmarked_classes, find_without_class
from imagier.data.loading.collate import get_forms
from imagier.data.sample import Sample
from imagier.errors import UserError

logger = logging.getLogger(__name__)

_VALUES = 65536

MOST_AUGMENTED = 20
"""Samples that are also made as for a batch: their sizes tell whether crops fit and batches can be formed."""


def quick_check(
    dataset: Dataset,
    *,
    batch_size: int = 1,
    codecs: Sequence[Codec] = (),
    labels: Collection[str] = (),
    is_skipping: bool = False,
    seconds: float = 2.0,
    most: int = 200,
) -> list[str]:
    """Reads up to `most` samples spread evenly over the set, for at most so long; says in lines what would end a run.

    They are read in a fixed random order, so that those read before the time is over come from all of the set too.
    codecs: of those that hold classes, it is logged how many pixels have none, and if most classes are not there.
    labels: input types of the label; of those it is logged if they seem to hold classes that the config does not know.
    is_skipping: wrong files are skipped in a run, and end it only if they are most of those read.
    """
    problems: dict[str, None] = {}  # in order, each once
    samples: list[Sample] = []
    classes, label_maps = _Classes(codecs), _Labels(codecs, labels)
    deadline = time.monotonic() + seconds
    count = min(most, len(dataset))
    num_read = 0
    for i in np.random.default_rng(0).permutation(count):
        index = int(i) * len(dataset) // count
        num_read += 1
        try:
            arrays = dataset.load(index)
            classes.see(arrays)
            label_maps.see(arrays)
            if num_read <= MOST_AUGMENTED:
                samples.append(dataset[0, index])
        except UserError as error:
            problems[str(error)] = None
        if time.monotonic() > deadline:
            break
    if is_skipping and 2 * len(problems) <= num_read:
        problems = {}
    if batch_size > 1 and samples:
        problems |= dict.fromkeys(_find_misfits(samples))
    for line in [*classes.describe(), *label_maps.describe()]:
        logger.warning(line)
    return list(problems)


def _find_misfits(samples: Sequence[Sample]) -> list[str]:
    """A line if samples differ in size or type, so that a batch of them could not be formed."""
    first = get_forms(samples[0])
    other = next((sample for sample in samples if get_forms(sample) != first), None)
    if other is None:
        return []
    name = next(name for name, form in get_forms(other).items() if form != first[name])
    shown = [
        f"{sample.keys[name]} ({' x '.join(map(str, sample.arrays[name].shape))} {sample.arrays[name].dtype})"
        for sample in (samples[0], other)
    ]
    return [
        f"{name}: {' and '.join(shown)} do not fit into a batch together; crop or convert them, or use batch_size: 1"
    ]


class _Classes:
    """Which classes occur in the maps that were read, and in how many pixels there is none."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.known = {codec.name: codec for codec in codecs if codec.num_classes is not None}
        self.pixels = {name: np.zeros(_VALUES, np.int64) for name in self.known}
        self.maps = 0

    def see(self, arrays: dict[str, np.ndarray]) -> None:
        """Notes the classes in the maps of a sample, as stored."""
        self.maps += 1
        for name in self.known.keys() & arrays.keys():
            self.pixels[name] += np.bincount(arrays[name].ravel(), minlength=_VALUES)

    def describe(self) -> list[str]:
        """A line for each type with pixels of no class, and for each of whose classes less than half were seen."""
        lines = []
        for name, codec in self.known.items():
            assert codec.num_classes is not None
            without = find_without_class(codec, self.pixels[name])
            if without is not None:
                lines.append(
                    f"{name}: {without.what}; {without.advice}" if without.advice else f"{name}: {without.what}"
                )
            used = np.flatnonzero(self.pixels[name][: codec.num_classes]).tolist()
            if self.maps and 2 * len(used) < codec.num_classes:
                shown = ", ".join(map(str, used[:5])) + (", ..." if len(used) > 5 else "")
                found = f"{self.maps} maps hold only {len(used)} of them ({shown})"
                lines.append(f"one_hot_num_classes.{name} is {codec.num_classes}, but {found}: is that intended?")
        return lines


class _Labels:
    """Which values occur in the types of the label that are no classes."""

    def __init__(self, codecs: Sequence[Codec], labels: Collection[str]) -> None:
        self.known = {codec.name: codec for codec in codecs if codec.name in labels and codec.num_classes is None}
        self.pixels: dict[str, np.ndarray] = {}

    def see(self, arrays: dict[str, np.ndarray]) -> None:
        """Notes the values of a sample, where they are whole numbers of 8 bits."""
        for name in self.known.keys() & arrays.keys():
            if arrays[name].dtype == np.uint8 and arrays[name].shape[-1] == 1:
                counts = np.bincount(arrays[name].ravel(), minlength=256)
                self.pixels[name] = self.pixels.get(name, 0) + counts

    def describe(self) -> list[str]:
        """A line for each type that seems to hold classes."""
        found = {name: find_unmarked_classes(self.known[name], pixels) for name, pixels in self.pixels.items()}
        return [f"{name}: {doubt.what}; {doubt.advice}" for name, doubt in found.items() if doubt is not None]
