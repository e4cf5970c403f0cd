"""Images of one type, each with its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from imagier.data.decoding.sample import InputType, Sample, random_source
from imagier.data.listing.files import Files, numbered, sample_of
from imagier.data.sources.source import Source

IMAGES = "images"


class Dataset:
    """A file's class is its outermost folder. In training a file is drawn, whatever the index; else it is that file."""

    paired: ClassVar[bool] = False
    """Files of all types belong together by name."""
    input_names: ClassVar[Sequence[str]] = (IMAGES,)

    classes: Sequence[str]
    """Sorted, of all roots together; a label is a place in it."""

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
        """UserError if a source lacks the type."""
        (kind,) = input_types
        self.files = Files(
            sources,
            kind,
            augmentations=augmentations,
            interpolator=interpolator,
            use_dont_care=use_dont_care,
            root_weights=root_weights,
            reduced_jpeg=reduced_jpeg,
        )
        self.training = training
        self.seed = seed
        names = self.files.class_names()
        self.classes = sorted(set(names))
        self.labels = numbered(names, self.classes)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def blocks(self) -> Sequence[int]:
        """All as one: its files are drawn."""
        return [len(self)]

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of (epoch, index). First the file is drawn, then its augmentation."""
        epoch, index = key
        rng = random_source(self.seed, epoch, index)
        place = self.files.draw(rng) if self.training else index
        return sample_of({IMAGES: self.files}, {IMAGES: place}, rng, labels=int(self.labels[place]))

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The image as stored, checked. UserError with the name of a file that is wrong."""
        return {IMAGES: self.files.load(index)}
