"""Images of one type, each with its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from imagier.data import dataset
from imagier.data.dataset import DatasetSpec, Key
from imagier.data.listing.files import Files, make_sample, number_classes
from imagier.data.sample import Sample

IMAGES = "images"


class Dataset(dataset.Dataset):
    """A file's class is its outermost folder. In training a file is drawn, whatever the index; else it is that file."""

    draws_files = True
    makes_label = False
    reads_root_weights = True
    reads_reduced_jpeg = True
    has_classes = True
    required_input_types = (IMAGES,)

    def __init__(self, spec: DatasetSpec) -> None:
        """UserError if a source lacks the type."""
        super().__init__(spec)
        (codec,) = spec.codecs
        self.files = Files(spec, codec)
        names = self.files.class_names()
        self._classes, self.labels = number_classes(names)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Sorted, of all roots together."""
        return {"labels": self._classes}

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index). First the file is drawn, then its augmentation."""
        rng = self.rng(key)
        index = self.files.draw(rng) if self.spec.is_training else key[1]
        return make_sample({IMAGES: self.files}, {IMAGES: index}, rng, labels=int(self.labels[index]))

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The image as stored, checked. UserError with the name of a file that is wrong."""
        return {IMAGES: self.files.load(index)}
