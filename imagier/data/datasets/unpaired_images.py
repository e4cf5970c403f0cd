"""Images of several types of which no two belong together: horses, and zebras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from imagier.data.decoding.sample import InputType, Sample, random_source
from imagier.data.listing.files import files_by_type, sample_of, stored
from imagier.data.sources.source import Source


class Dataset:
    """As many samples as the longest list of files has entries.

    In training every type's file is drawn by itself, whatever the index; else it is file `index` of the list, which
    begins again at its end.
    """

    paired: ClassVar[bool] = False
    """Files of all types belong together by name."""
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
        root_weights: Sequence[float] | None = None,
        reduced_jpeg: bool = False,
    ) -> None:
        """UserError if a source lacks a type."""
        self.files = files_by_type(
            sources,
            input_types,
            augmentations=augmentations,
            interpolator=interpolator,
            use_dont_care=use_dont_care,
            root_weights=root_weights,
            reduced_jpeg=reduced_jpeg,
        )
        self.training = training
        self.seed = seed

    def __len__(self) -> int:
        return max(len(files) for files in self.files.values())

    @property
    def blocks(self) -> Sequence[int]:
        """All as one: its files are drawn."""
        return [len(self)]

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of (epoch, index). First the files are drawn, type by type, then their augmentations."""
        epoch, index = key
        rng = random_source(self.seed, epoch, index)
        if self.training:
            places = {name: files.draw(rng) for name, files in self.files.items()}
        else:
            places = {name: index % len(files) for name, files in self.files.items()}
        return sample_of(self.files, places, rng)

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Images as stored, checked; over all indices, those of all files. UserError names one that is wrong."""
        return stored(self.files, index, len(self))
