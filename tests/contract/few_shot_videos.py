"""Clips with references: their own first frames, as networks see them."""

from __future__ import annotations

import dataclasses

import numpy as np

from imagier.data.dataset import DatasetSpec, Key
from imagier.data.datasets import paired_videos
from imagier.data.sample import Sample
from imagier.ranges import Positive


class Dataset(paired_videos.Dataset):
    """Of `images` and `seg_maps` of 4 classes."""

    def __init__(
        self,
        spec: DatasetSpec,
        *,
        initial_few_shot_K: Positive = 1,
        initial_sequence_length: Positive | None = None,
        max_sequence_length: Positive = 100,
    ) -> None:
        lengths = {"initial_sequence_length": initial_sequence_length, "max_sequence_length": max_sequence_length}
        super().__init__(spec, **lengths)  # type: ignore[arg-type]
        self.num_references = initial_few_shot_K

    def __getitem__(self, key: Key) -> Sample:
        """As of paired_videos, with `few_shot_images` K x 3 x h x w and `few_shot_label` K x 4 x h x w."""
        sample = super().__getitem__(key)
        numbers = np.arange(self.num_references) % len(sample.arrays["images"])
        images, classes = (sample.arrays[name][numbers] for name in ("images", "seg_maps"))
        references = {
            "few_shot_images": np.moveaxis(images.astype(np.float32) / 127.5 - 1, -1, 1),
            "few_shot_label": np.moveaxis(classes == np.arange(4), -1, 1).astype(np.float32),
        }
        return dataclasses.replace(sample, arrays={**sample.arrays, **references})
