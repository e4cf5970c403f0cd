"""Content and style images with their classes: an animal of one kind, and one of another kind to make of it.

Liu et al., Few-Shot Unsupervised Image-to-Image Translation (FUNIT), 2019.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from imagier.data import dataset
from imagier.data.dataset import DatasetSpec, Key
from imagier.data.listing.files import load_each, make_files, make_sample, number_classes
from imagier.data.sample import Sample

CONTENT, STYLE = "images_content", "images_style"

# Those of the reference, so that scores can be compared.
CLASS_STRIDE, FILE_STRIDE = 8888, 100


class Dataset(dataset.Dataset):
    """A file's class is its outermost folder. Contents and styles have classes of their own, each numbered from 0.

    In training both files are drawn uniformly from all files, whatever the index; else every style file comes once,
    class after class, each with a content file that its index determines.
    """

    draws_files = True
    makes_label = False
    reads_root_weights = True
    reads_reduced_jpeg = True
    has_classes = True
    required_input_types = (CONTENT, STYLE)

    def __init__(self, spec: DatasetSpec) -> None:
        """UserError if a source lacks a type."""
        super().__init__(spec)
        self.files = make_files(spec)
        names = {name: files.class_names() for name, files in self.files.items()}
        numbered = {name: number_classes(of_type) for name, of_type in names.items()}
        self._classes = {f"labels_{name.removeprefix('images_')}": classes for name, (classes, _) in numbered.items()}
        self.labels = {name: labels for name, (_, labels) in numbered.items()}
        self.held_out = _pair_held_out(names[STYLE], len(self.files[CONTENT]))

    def __len__(self) -> int:
        return max(map(len, self.files.values())) if self.spec.is_training else len(self.held_out)

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Sorted, of all roots together, and apart for contents and styles, as the reference numbers them."""
        return self._classes

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index). The content is drawn, then the style, then the augmentations in their order."""
        rng = self.rng(key)
        if self.spec.is_training:
            content, style = (self.files[name].draw(rng) for name in (CONTENT, STYLE))
        else:
            content, style = self.held_out[key[1]].tolist()
        return make_sample(
            self.files,
            {CONTENT: content, STYLE: style},
            rng,
            labels_content=int(self.labels[CONTENT][content]),
            labels_style=int(self.labels[STYLE][style]),
        )

    def for_inference(self, num_styles: int | None = None) -> Dataset:
        """Every content file in every style, or in the first so many, content after content."""
        contents = len(self.files[CONTENT])
        styles = min(num_styles or len(self.files[STYLE]), len(self.files[STYLE]))
        crossed = copy.copy(self)
        crossed.held_out = np.indices((contents, styles), np.int32).reshape(2, -1).T
        return crossed

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Images as stored, checked; over all indices, those of all samples. UserError names a file that is wrong."""
        if self.spec.is_training:
            return load_each(self.files, index, len(self))
        content, style = self.held_out[index].tolist()
        return {CONTENT: self.files[CONTENT].load(content), STYLE: self.files[STYLE].load(style)}


def _pair_held_out(style_classes: Sequence[str], num_contents: int) -> np.ndarray:
    """The indices (content, style) of the held-out samples, N x 2, from the class of every style file."""
    of_class = defaultdict(list)
    for index, name in enumerate(style_classes):
        of_class[name].append(index)
    pairs = [
        ((i + CLASS_STRIDE * rank) * FILE_STRIDE % num_contents, style)
        for rank, name in enumerate(sorted(of_class))
        for i, style in enumerate(of_class[name])
    ]
    return np.array(pairs)
