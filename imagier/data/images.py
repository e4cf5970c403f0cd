"""Pictures of one type, each with its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from imagier.data.files import Files, sample_of
from imagier.data.sample import InputType, Sample, random_source
from imagier.data.source import Source

IMAGES = "images"


class Dataset:
    """A file's class is its outermost folder. In training a file is drawn, whatever the index; else it is that file."""

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
    ) -> None:
        """UserError if a source lacks the type."""
        (kind,) = input_types
        self.files = Files(
            sources,
            kind,
            augmentations=augmentations,
            interpolator=interpolator,
            use_dont_care=use_dont_care,
        )
        self.training = training
        self.seed = seed
        names = [self.files.class_name(i) for i in range(len(self.files))]
        self.classes = sorted(set(names))
        number = {name: i for i, name in enumerate(self.classes)}
        self.labels = [number[name] for name in names]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of (epoch, index). First the file is drawn, then its augmentation."""
        epoch, index = key
        rng = random_source(self.seed, epoch, index)
        place = rng.choice(range(len(self.files))) if self.training else index
        return sample_of({IMAGES: self.files}, {IMAGES: place}, rng, labels=self.labels[place])

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The picture as stored, checked. UserError with the name of a file that is wrong."""
        return {IMAGES: self.files.load(index)}
