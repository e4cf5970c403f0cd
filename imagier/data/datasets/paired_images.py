"""Images of several types that belong together by name: label maps and the photographs that they describe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imagier.data import dataset
from imagier.data.augmentation.augment import Augmenter, find_largest_size
from imagier.data.codec import Stored
from imagier.data.dataset import DatasetSpec, Key
from imagier.data.listing.files import FileList, list_shard_lengths
from imagier.data.listing.pairing import fit_together, list_paired_keys
from imagier.data.sample import Number, Sample, augment, image_sizes, load_stored
from imagier.data.sources.keys import Keys
from imagier.errors import UserError


class Dataset(dataset.Dataset):
    """All samples of a split, from one or several roots, in the order of the roots and of the names in them.

    In training, too, sample `index` is always the same files, unless there are root weights: then it is drawn. Key
    points are in the pixels of the type `image`, or else of the first type of images, and move as these do.
    """

    is_paired = True
    reads_keypoints = True
    reads_root_weights = True
    reads_reduced_jpeg = True

    def __init__(self, spec: DatasetSpec) -> None:
        """UserError if a sample lacks an image."""
        super().__init__(spec)
        self.draws = spec.is_training and spec.root_weights is not None
        self.augmenter = Augmenter(spec.augmentations, spec.interpolator)
        keys = [list_paired_keys(source, [codec.name for codec in spec.codecs]) for source in spec.sources]
        self.files = FileList(spec.sources, keys, spec.root_weights)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def blocks(self) -> Sequence[int]:
        """The samples of each shard."""
        if self.draws:
            return [len(self)]
        return list_shard_lengths(self.spec.sources, self.spec.codecs[0].name, len(self))

    @property
    def names(self) -> Keys:
        """What each sample is called where its images are written."""
        return self.files.names

    def __getitem__(self, key: Key) -> Sample:
        """The sample `index`, augmented as in epoch `epoch`."""
        rng = self.rng(key)
        index = self.files.draw(rng) if self.draws else key[1]
        stored = self._load(index, is_reduced=self.spec.reduced_jpeg)
        sizes = image_sizes(stored, self.spec.codecs)
        original = find_largest_size(sizes.values())
        try:
            drawn = self.augmenter.draw(original, rng, is_training=self.spec.is_training)
            arrays = augment(stored, self.spec.codecs, drawn)
        except UserError as error:
            raise error.at(self.where(index)) from error
        numbers: dict[str, Number] = {"original_h_w": original, "is_flipped": drawn.is_flipped}
        numbers |= {f"original_h_w_{name}": size for name, size in sizes.items()}
        return Sample(arrays, dict.fromkeys(arrays, self.names[index]), numbers)

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The images H x W x C and key points P x D of a sample as stored, checked. UserError names a wrong file."""
        return {name: each.array for name, each in self._load(index).items()}

    def where(self, index: int) -> str:
        """What to call a sample in a message: the file of its first type."""
        source, key = self.files[index]
        return source.where(self.spec.codecs[0].name, key)

    def _load(self, index: int, is_reduced: bool = False) -> dict[str, Stored]:
        source, key = self.files[index]
        needed = self.augmenter.compute_needed_size if is_reduced else None
        stored = load_stored(source, self.spec.codecs, key, needed)
        return fit_together(stored, self.spec.codecs, lambda name: source.where(name, key))
