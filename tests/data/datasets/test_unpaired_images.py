"""Images of which no two belong together: what is drawn, from what it depends, and how it gets into a batch."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augmenting import carried_out
from images import Memory, noise, png, write
from small_data import build, codec_for

from imagier.data.augmentation.augment import Augmenter
from imagier.data.codec import Codec
from imagier.data.datasets.unpaired_images import Dataset
from imagier.data.loading.loader import Loader
from imagier.data.loading.on_device import Expander
from imagier.data.sources.folder import FolderSource
from imagier.errors import UserError
from imagier.recipe import Batch, Position
from imagier.run.quick_check import quick_check

A = codec_for(name="images_a", ext="png", num_channels=3, normalize=True)
B = codec_for(name="images_b", ext="png", num_channels=3, normalize=True)
RANDOM = {"resize_h_w": "6, 7", "rotate": 20, "random_scale_limit": 0.5, "horizontal_flip": True} | {
    "random_crop_h_w": "4, 4"
}
NONE = {"resize_h_w": "4, 5"}


def memory(a: int, b: int, name: str = "memory") -> Memory:
    """So many images of a and of b, no two alike; a/0, a/1, ... and b/0, b/1, ..."""
    files = {("images_a", f"a/{i}"): png(noise(4, 5, seed=i)) for i in range(a)}
    return Memory({**files, **{("images_b", f"b/{i}"): png(noise(4, 5, seed=100 + i)) for i in range(b)}}, name)


def dataset(*sources: Any, augmentations: Any = RANDOM, is_training: bool = True, **options: Any) -> Dataset:
    return build(Dataset, sources, codecs=[A, B], augmentations=augmentations, is_training=is_training, **options)


def loader(data: Any, batch_size: int, **options: Any) -> Loader:
    finish = options.pop("finish", lambda batch: batch)
    return Loader(data, batch_size, device=torch.device("cpu"), finish=finish, **options)


def content(batch: Batch) -> tuple[dict[str, list], dict[str, list[str]]]:
    return {name: tensor.tolist() for name, tensor in batch.tensors.items()}, batch.keys


@pytest.mark.parametrize("is_training", [False, True])
def test_the_set_is_as_long_as_its_longest_list(is_training: bool) -> None:
    assert len(dataset(memory(3, 5), is_training=is_training)) == 5
    assert len(dataset(memory(4, 1), memory(3, 2), is_training=is_training)) == 7


def test_held_out_the_shorter_list_begins_again_at_its_end() -> None:
    held_out = dataset(memory(2, 5), augmentations=NONE, is_training=False)
    for index in range(5):
        sample = held_out[0, index]
        assert sample.keys == {"images_a": f"a/{index % 2}", "images_b": f"b/{index}"}
        np.testing.assert_array_equal(sample.arrays["images_a"], noise(4, 5, seed=index % 2))
        np.testing.assert_array_equal(sample.arrays["images_b"], noise(4, 5, seed=100 + index))


def test_in_training_each_types_file_is_drawn_uniformly_and_by_itself() -> None:
    data = dataset(memory(2, 3), augmentations=NONE)
    drawn = Counter(
        tuple(data[epoch, index].keys.values()) for epoch in range(200) for index in range(3)
    )  # 600 of 6 pairs: 100 each, standard deviation 9.1
    assert len(drawn) == 6
    assert all(60 < count < 140 for count in drawn.values())


@pytest.mark.parametrize("kinds", [[A, B], [B, A]])
def test_files_are_drawn_first_then_augmentations_in_the_order_of_the_types(kinds: list[Codec]) -> None:
    """Written once more from its description, with one source of draws for all of it."""
    source = memory(3, 5)
    data = build(Dataset, [source], codecs=kinds, augmentations=RANDOM, is_training=True, seed=7)
    for epoch, index in [(0, 0), (2, 4), (5, 1)]:
        rng = random.Random(int(np.random.SeedSequence((7, epoch, index)).generate_state(1, np.uint64)[0]))
        keys = {kind.name: rng.choice(source.keys(kind.name)) for kind in kinds}
        sample = data[epoch, index]
        assert sample.keys == keys
        for kind in kinds:
            letter, number = keys[kind.name].split("/")
            stored = noise(4, 5, seed=int(number) + 100 * (letter == "b"))
            augmented = carried_out(Augmenter(RANDOM), {kind.name: stored}, rng)
            np.testing.assert_array_equal(sample.arrays[kind.name], augmented.images[kind.name])
            assert sample.numbers[f"is_flipped_{kind.name}"] == augmented.is_flipped
            assert sample.numbers[f"original_h_w_{kind.name}"] == (4, 5)


def test_types_are_flipped_independently() -> None:
    data = dataset(memory(1, 1), augmentations={"resize_h_w": "2, 2", "horizontal_flip": True})
    flips = Counter(tuple(data[epoch, 0].numbers.values()) for epoch in range(400))
    assert len(flips) == 4
    assert all(60 < count < 140 for count in flips.values())  # 5 standard deviations


def look(data: Dataset, epoch: int, index: int) -> tuple[object, ...]:
    sample = data[epoch, index]
    return tuple(sample.keys.values()), *(array.tobytes() for array in sample.arrays.values()), *sample.numbers.values()


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    source = memory(3, 4)
    places = [(seed, epoch, index) for seed in (0, 2**40) for epoch in range(3) for index in range(4)]
    first = {place: look(dataset(source, seed=place[0]), *place[1:]) for place in places}
    random.seed(1)
    again = {seed: dataset(source, seed=seed) for seed in (0, 2**40)}
    assert {place: look(again[place[0]], *place[1:]) for place in reversed(places)} == first
    assert len(set(first.values())) == len(places)


def test_a_mask_is_resized_without_mixing_its_values() -> None:
    mask = codec_for(name="images_a", ext="png", num_channels=1, is_mask=True)
    source = Memory({("images_a", "./0"): png(np.array([[3, 200]], np.uint8)[..., None].repeat(2, 0))})
    data = build(Dataset, [source], codecs=[mask], augmentations={"resize_h_w": "9, 9"})
    assert set(np.unique(data[0, 0].arrays["images_a"])) == {3, 200}


def test_roots_are_pooled_and_a_name_that_comes_again_gets_a_number() -> None:
    held_out = dataset(memory(2, 1, "one"), memory(1, 1, "other"), is_training=False)
    assert [held_out[0, i].keys["images_a"] for i in range(3)] == ["a/0", "a/1", "a/0_2"]


def test_a_set_of_one_type_alone_is_read(tmp_path: Path) -> None:
    write(tmp_path / "images_a" / "0.png", png(noise(4, 5)))
    data = build(Dataset, [FolderSource(tmp_path, {"images_a": "png"})], codecs=[A], augmentations=NONE)
    assert data[0, 0].keys == {"images_a": "./0"}


# Wrong files


@pytest.mark.parametrize("is_training", [False, True])
def test_a_look_at_the_set_comes_by_every_file_of_every_type(is_training: bool) -> None:
    for wrong in [("images_a", "a/1"), ("images_b", "b/0"), ("images_b", "b/6")]:
        source = memory(3, 7)
        source.files[wrong] = b"hello"
        lines = quick_check(dataset(source, is_training=is_training))
        assert lines
        assert all(line.startswith(f"memory/{wrong[0]}/{wrong[1]}.png: not an image") for line in lines)


def test_a_crop_that_does_not_fit_names_the_file_of_its_type() -> None:
    small = dataset(memory(1, 1), augmentations={"resize_h_w": "4, 4", "random_crop_h_w": "5, 4"})
    with pytest.raises(UserError, match=r"^memory/images_a/a/0\.png: crop 5 x 4 is larger than the image, 4 x 4"):
        small[0, 0]


def test_a_type_without_a_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "images_a" / "0.png", png(noise(4, 5)))
    source = FolderSource(tmp_path, {"images_a": "png", "images_b": "png"})
    with pytest.raises(UserError, match=r"no folder 'images_b' for the input type of that name; it has: images_a$"):
        dataset(source)


# In a batch


def test_a_batch_names_and_flips_every_type_by_itself_and_has_no_label() -> None:
    data = dataset(memory(3, 5), seed=3)
    batch = loader(data, 4, finish=Expander([A, B], [])).some(4)
    samples = [data[0, index] for index in (0, 1, 2, 3)]
    numbers = {f"{number}_{kind}" for number in ("is_flipped", "original_h_w") for kind in ("images_a", "images_b")}
    assert set(batch.tensors) == {"images_a", "images_b", *numbers}
    for name in ("images_a", "images_b"):
        assert batch.keys[name] == [sample.keys[name] for sample in samples]
        assert batch[f"is_flipped_{name}"].tolist() == [sample.numbers[f"is_flipped_{name}"] for sample in samples]
        stored = np.stack([sample.arrays[name] for sample in samples]).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(batch[name].numpy(), stored / 127.5 - 1, atol=1e-6)
    halves = batch.split(2)
    assert [half.keys["images_b"] for half in halves] == [batch.keys["images_b"][:2], batch.keys["images_b"][2:]]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_resumed_by_any_number_of_workers_is_the_stream_that_was_never_stopped(num_workers: int) -> None:
    def start(at: Position, **options: Any) -> Any:
        return loader(dataset(memory(2, 5), seed=2), 2, seed=2, shuffle=True, **options).stream(at)

    uninterrupted = list(islice(start(Position()), 5))
    position = uninterrupted[1][1]
    rest = [content(batch) for batch, _ in islice(start(position, num_workers=num_workers), 3)]
    assert rest == [content(batch) for batch, _ in uninterrupted[2:]]


def test_two_ranks_side_by_side_are_one_process_with_a_batch_of_both() -> None:
    data = dataset(memory(4, 7), seed=1)
    alone = loader(data, 4, seed=1, shuffle=True).stream(Position())
    ranks = [loader(data, 2, seed=1, shuffle=True, rank=rank, world=2).stream(Position()) for rank in range(2)]
    for _ in range(3):
        batch, _ = next(alone)
        assert [content(half) for half in batch.split(2)] == [content(next(rank)[0]) for rank in ranks]


def test_a_data_set_can_be_sent_to_a_worker_that_is_not_forked() -> None:
    data = dataset(memory(2, 3))
    copy = pickle.loads(pickle.dumps(data))
    assert content(loader(copy, 3).some(3)) == content(loader(data, 3).some(3))
