"""Images of one type, each with its class."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from images import Memory, noise, png
from small_data import build, codec_for

from imagier.data.datasets.images import Dataset
from imagier.data.loading.loader import Loader
from imagier.run.quick_check import quick_check

KEYS = ["dog/0", "ape/0", "ape/1", "cat/young/0"]
FILES = {("images", key): png(noise(4, 4, seed=i)) for i, key in enumerate(KEYS)}


def dataset(*sources: Any, is_training: bool = False, augmentations: Any = None, seed: int = 0) -> Dataset:
    kind = codec_for(name="images", ext="png", num_channels=3)
    return build(
        Dataset,
        sources or [Memory(FILES)],
        codecs=[kind],
        augmentations=augmentations or {"resize_h_w": "4, 4"},
        is_training=is_training,
        seed=seed,
    )


def test_held_out_a_sample_is_its_file_with_the_number_of_its_outermost_folder() -> None:
    data = dataset()
    assert data.classes == {"labels": ["ape", "cat", "dog"]}
    for index, label in enumerate([2, 0, 0, 1]):
        sample = data[3, index]
        assert sample.keys == {"images": KEYS[index]}
        assert sample.numbers == {"is_flipped_images": False, "original_h_w_images": (4, 4), "labels": label}
        np.testing.assert_array_equal(sample.arrays["images"], noise(4, 4, seed=index))


def test_in_training_files_are_drawn_uniformly() -> None:
    data = dataset(is_training=True)
    assert len(data) == 4
    drawn = Counter(data[epoch, index].keys["images"] for epoch in range(100) for index in range(4))
    assert all(57 < drawn[key] < 143 for key in KEYS)  # 100 each, 5 standard deviations


def test_classes_of_all_roots_are_numbered_together() -> None:
    data = dataset(
        Memory(FILES), Memory({("images", "bee/0"): png(noise(4, 4)), ("images", "cat/0"): png(noise(4, 4))})
    )
    assert data.classes == {"labels": ["ape", "bee", "cat", "dog"]}
    assert [data[0, index].numbers["labels"] for index in range(6)] == [3, 0, 0, 2, 1, 2]


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    augmentations = {"resize_h_w": "6, 6", "rotate": 30, "random_crop_h_w": "4, 4"}
    places = [(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(4)]

    def look(seed: int, epoch: int, index: int) -> tuple[object, ...]:
        sample = dataset(is_training=True, augmentations=augmentations, seed=seed)[epoch, index]
        return *sample.keys.values(), sample.arrays["images"].tobytes(), *sample.numbers.values()

    first = {place: look(*place) for place in places}
    assert {place: look(*place) for place in reversed(places)} == first
    assert len(set(first.values())) == len(places)


def test_labels_of_a_batch_are_whole_numbers() -> None:
    loader = Loader(dataset(), 4, device=torch.device("cpu"), finish=lambda batch: batch)
    batch = next(loader.once())
    assert batch["labels"].dtype == torch.int64
    assert batch["labels"].tolist() == [2, 0, 0, 1]
    assert batch.keys == {"images": KEYS}


@pytest.mark.parametrize("is_training", [False, True])
def test_a_look_at_the_set_names_a_wrong_file(is_training: bool) -> None:
    source = Memory({**FILES, ("images", "ape/1"): b""})
    (line,) = quick_check(dataset(source, is_training=is_training))
    assert line.startswith("memory/images/ape/1.png: the file is empty")
