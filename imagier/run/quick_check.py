"""A quick look at a data set before a run: what is wrong with it in one line each."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from imagier.data.codec import Codec
from imagier.data.dataset import Dataset
from imagier.data.loading.collate import get_forms
from imagier.data.sample import Sample
from imagier.errors import UserError

logger = logging.getLogger(__name__)

MOST_AUGMENTED = 20
"""Samples that are also made as for a batch: their sizes tell whether crops fit and batches can be formed."""


def quick_check(
    dataset: Dataset,
    *,
    batch_size: int = 1,
    codecs: Sequence[Codec] = (),
    is_skipping: bool = False,
    seconds: float = 2.0,
    most: int = 200,
) -> list[str]:
    """Reads up to `most` samples spread evenly over the set, for at most so long; says in lines what would end a run.

    They are read in a fixed random order, so that those read before the time is over come from all of the set too.
    codecs: of those that hold classes, it is logged if most of these are not there. is_skipping: wrong files are
    skipped in a run, and end it only if they are most of those read.
    """
    problems: dict[str, None] = {}  # in order, each once
    samples: list[Sample] = []
    classes = _Classes(codecs)
    deadline = time.monotonic() + seconds
    count = min(most, len(dataset))
    num_read = 0
    for i in np.random.default_rng(0).permutation(count):
        index = int(i) * len(dataset) // count
        num_read += 1
        try:
            classes.see(dataset.load(index))
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
    for line in classes.list_rarely_used():
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
    """Which classes occur in the maps that were read."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.known = {codec.name: codec.num_classes for codec in codecs if codec.num_classes is not None}
        self.seen: dict[str, set[int]] = {name: set() for name in self.known}
        self.maps = 0

    def see(self, arrays: dict[str, np.ndarray]) -> None:
        """Notes the classes in the maps of a sample, as stored."""
        self.maps += 1
        for name in self.known.keys() & arrays.keys():
            self.seen[name].update(np.flatnonzero(np.bincount(arrays[name].ravel())).tolist())

    def list_rarely_used(self) -> list[str]:
        """A line for each type of whose classes less than half were seen."""
        lines = []
        for name, known in self.known.items():
            used = sorted(number for number in self.seen[name] if number < known)
            if self.maps and 2 * len(used) < known:
                shown = ", ".join(map(str, used[:5])) + (", ..." if len(used) > 5 else "")
                found = f"{self.maps} maps hold only {len(used)} of them ({shown})"
                lines.append(f"one_hot_num_classes.{name} is {known}, but {found}: is that intended?")
        return lines
