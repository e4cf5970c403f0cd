"""Content and style images with their classes: an animal of one kind, and one of another kind to make of it.

Liu et al., Few-Shot Unsupervised Image-to-Image Translation (FUNIT), 2019.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from imagier.data.decoding.sample import InputType, Sample, random_source
from imagier.data.listing.files import files_by_type, numbered, sample_of, stored
from imagier.data.sources.source import Source

CONTENT, STYLE = "images_content", "images_style"

# Those of the reference, so that scores can be compared.
CLASS_STRIDE, FILE_STRIDE = 8888, 100


class Dataset:
    """A file's class is its outermost folder.

    In training both files are drawn uniformly from all files, whatever the index; else every style file comes once,
    class after class, each with a content file that its place determines.
    """

    paired: ClassVar[bool] = False
    """Files of all types belong together by name."""
    input_names: ClassVar[Sequence[str]] = (CONTENT, STYLE)

    classes: Sequence[str]
    """Sorted, of both types and all roots together; a label is a place in it, for contents and for styles alike."""

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
        names = {kind: files.class_names() for kind, files in self.files.items()}
        self.classes = sorted({*names[CONTENT], *names[STYLE]})
        self.labels = {kind: numbered(of_type, self.classes) for kind, of_type in names.items()}
        self.held_out = _held_out_places(names[STYLE], len(self.files[CONTENT]))

    def __len__(self) -> int:
        return max(map(len, self.files.values())) if self.training else len(self.held_out)

    @property
    def blocks(self) -> Sequence[int]:
        """All as one: its files are drawn."""
        return [len(self)]

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of (epoch, index). The content is drawn, then the style, then the augmentations in their order."""
        epoch, index = key
        rng = random_source(self.seed, epoch, index)
        if self.training:
            content, style = (self.files[kind].draw(rng) for kind in (CONTENT, STYLE))
        else:
            content, style = self.held_out[index].tolist()
        return sample_of(
            self.files,
            {CONTENT: content, STYLE: style},
            rng,
            labels_content=int(self.labels[CONTENT][content]),
            labels_style=int(self.labels[STYLE][style]),
        )

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Images as stored, checked; over all indices, those of all samples. UserError names a file that is wrong."""
        if self.training:
            return stored(self.files, index, len(self))
        content, style = self.held_out[index].tolist()
        return {CONTENT: self.files[CONTENT].load(content), STYLE: self.files[STYLE].load(style)}


def _held_out_places(style_classes: Sequence[str], num_contents: int) -> np.ndarray:
    """(content, style) places of the held-out samples, N x 2, from the class of every style file."""
    places = defaultdict(list)
    for place, name in enumerate(style_classes):
        places[name].append(place)
    pairs = [
        ((i + CLASS_STRIDE * rank) * FILE_STRIDE % num_contents, style)
        for rank, name in enumerate(sorted(places))
        for i, style in enumerate(places[name])
    ]
    return np.array(pairs)
