"""Images of several types of which no two belong together: horses, and zebras."""

from __future__ import annotations

import numpy as np

from imagier.data import dataset
from imagier.data.dataset import DatasetSpec, Key
from imagier.data.listing.files import load_each, make_files, make_sample
from imagier.data.sample import Sample


class Dataset(dataset.Dataset):
    """As many samples as the longest list of files has entries.

    In training every type's file is drawn by itself, whatever the index; else it is file `index` of the list, which
    begins again at its end.
    """

    draws_files = True
    makes_label = False
    reads_root_weights = True
    reads_reduced_jpeg = True

    def __init__(self, spec: DatasetSpec) -> None:
        """UserError if a source lacks a type."""
        super().__init__(spec)
        self.files = make_files(spec)

    def __len__(self) -> int:
        return max(len(files) for files in self.files.values())

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index). First the files are drawn, type by type, then their augmentations."""
        rng = self.rng(key)
        if self.spec.is_training:
            indices = {name: files.draw(rng) for name, files in self.files.items()}
        else:
            indices = {name: key[1] % len(files) for name, files in self.files.items()}
        return make_sample(self.files, indices, rng)

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Images as stored, checked; over all indices, those of all files. UserError names one that is wrong."""
        return load_each(self.files, index, len(self))
