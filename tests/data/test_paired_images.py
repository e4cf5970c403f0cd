"""Samples of pictures that belong together by name."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import Memory, noise, png, write

from imagier.data.paired_images import Dataset
from imagier.data.sample import InputType, Number
from imagier.data.sources.folder import FolderSource
from imagier.errors import UserError

IMAGES = InputType(name="images", ext="png", num_channels=3)
MAPS = InputType(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=5)
RANDOM = {"resize_h_w": "6, 7", "rotate": 20, "random_scale_limit": 0.5, "horizontal_flip": True} | {
    "random_crop_h_w": "4, 4"
}


def memory(*keys: str, name: str = "memory") -> Memory:
    """A picture 8 x 6 and a map 4 x 10 for every key."""
    files = {}
    for seed, key in enumerate(keys):
        files["images", key] = png(noise(8, 6, seed=seed))
        files["maps", key] = png(noise(4, 10, 1, seed=seed, below=5))
    return Memory(files, name)


def dataset(*sources: Any, augmentations: Any = RANDOM, **options: Any) -> Dataset:
    return Dataset(sources, input_types=[IMAGES, MAPS], augmentations=augmentations, **options)


def test_roots_are_pooled_in_their_order(tmp_path: Path) -> None:
    for root, names in (("b", ("2", "1")), ("a", ("1", "0/9"))):
        for kind in ("images", "maps"):
            for name in names:
                write(tmp_path / root / kind / f"{name}.png", png(noise(4, 4, 3 if kind == "images" else 1, below=5)))
    sources = [FolderSource(tmp_path / root, {"images": "png", "maps": "png"}) for root in ("b", "a")]
    pooled = dataset(*sources)
    names = ["./1", "./2", "./1_2", "0/9"]  # whoever writes files by these names overwrites none
    assert [pooled[0, i].keys for i in range(4)] == [{"images": name, "maps": name} for name in names]
    files = ["b/images/1.png", "b/images/2.png", "a/images/1.png", "a/images/0/9.png"]
    assert [Path(pooled.where(i)) for i in range(len(pooled))] == [tmp_path / file for file in files]


@pytest.mark.parametrize(("lost", "more"), [(["./b"], ""), (["./b", "./d", "./e"], " (and 2 more)")])
def test_a_file_without_partner_is_named_with_the_number_of_others(lost: list[str], more: str) -> None:
    source = memory("./a", "./b", "./c", "./d", "./e")
    for key in lost:
        del source.files["maps", key]
    with pytest.raises(UserError) as caught:
        dataset(source)
    expected = f"memory/images/./b.png: has no partner memory/maps/./b.png{more}; add it or remove the file"
    assert str(caught.value) == expected


def test_files_that_the_first_type_lacks_are_no_samples() -> None:
    source = memory("./a", "./b")
    del source.files["images", "./b"]
    assert len(dataset(source)) == 1


def test_the_original_size_is_the_largest_height_and_the_largest_width_over_the_types_beside_that_of_each() -> None:
    numbers = dataset(memory("./a"))[0, 0].numbers
    assert numbers["original_h_w"] == (8, 10)
    assert (numbers["original_h_w_images"], numbers["original_h_w_maps"]) == ((8, 6), (4, 10))


def test_without_random_augmentations_a_sample_is_its_files() -> None:
    images, maps = noise(4, 6), noise(4, 6, 1, below=5)
    source = Memory({("images", "s/a"): png(images), ("maps", "s/a"): png(maps)})
    sample = dataset(source, augmentations={"resize_h_w": "4, 6"})[3, 0]
    np.testing.assert_array_equal(sample.arrays["images"], images)
    np.testing.assert_array_equal(sample.arrays["maps"], maps)
    assert sample.keys == {"images": "s/a", "maps": "s/a"}
    sizes = dict.fromkeys(("original_h_w", "original_h_w_images", "original_h_w_maps"), (4, 6))
    assert sample.numbers == {**sizes, "is_flipped": False}


def look(dataset: Dataset, epoch: int, index: int) -> tuple[bytes, bytes, Number]:
    sample = dataset[epoch, index]
    return sample.arrays["images"].tobytes(), sample.arrays["maps"].tobytes(), sample.numbers["is_flipped"]


def test_training_and_held_out_samples_are_the_same_files() -> None:
    source = memory("./a", "./b")
    pair = [dataset(source, training=training) for training in (False, True)]
    for index in range(2):
        assert look(pair[0], 3, index) == look(pair[1], 3, index)


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    source = memory("./a", "./b", "./c")
    keys = [(epoch, index) for epoch in range(3) for index in range(3)]
    first = {key: look(dataset(source, seed=5), *key) for key in keys}
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    again = dataset(source, seed=5)
    assert {key: look(again, *key) for key in reversed(keys)} == first


def test_the_augmentation_changes_with_each_of_seed_epoch_and_index() -> None:
    picture = {("images", f"./{i}"): png(noise(8, 6)) for i in range(4)}
    source = Memory(picture | {("maps", f"./{i}"): png(noise(8, 6, 1, below=5)) for i in range(4)})
    places = [(seed, epoch, index) for seed in (0, 1, 2**40) for epoch in range(4) for index in range(4)]
    looks = {look(dataset(source, seed=seed), epoch, index) for seed, epoch, index in places}
    assert len(looks) == len(places)


def test_half_of_the_samples_are_flipped() -> None:
    augmentations = {"resize_h_w": "2, 2", "horizontal_flip": True}
    flips = dataset(memory("./a", "./b"), augmentations=augmentations)
    flipped = [flips[epoch, index].numbers["is_flipped"] for epoch in range(200) for index in range(2)]
    assert 150 < sum(flipped) < 250  # 5 standard deviations


def test_the_interpolator_is_that_of_the_data_section() -> None:
    source = memory("./a")
    small = {"resize_h_w": "2, 2"}
    area = dataset(source, augmentations=small, interpolator="INTER_AREA")[0, 0].arrays["images"]
    means = noise(8, 6).reshape(2, 4, 2, 3, 3).mean(axis=(1, 3))
    assert np.abs(area - means).max() <= 0.5


def test_a_crop_that_does_not_fit_names_the_file() -> None:
    small = dataset(memory("./a"), augmentations={"resize_h_w": "4, 4", "random_crop_h_w": "5, 4"})
    with pytest.raises(UserError, match=r"^memory/images/\./a\.png: crop 5 x 4 is larger than the image, 4 x 4"):
        small[0, 0]


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        ("images", b"hello", "not a picture, or damaged"),
        ("maps", b"", "the file is empty"),
        ("images", png(noise(4, 4, 1)), "has 1 channels"),
        ("maps", png(np.full((4, 4, 1), 7, np.uint8)), "holds class 7"),
    ],
)
def test_a_wrong_file_is_named_when_its_sample_is_loaded(kind: str, data: bytes, says: str) -> None:
    source = memory("./a", "./b")
    source.files[kind, "./b"] = data
    wrong = dataset(source)
    assert set(wrong.load(0)) == {"images", "maps"}
    for take in (lambda: wrong.load(1), lambda: wrong[0, 1]):
        with pytest.raises(UserError, match=rf"^memory/{kind}/\./b\.png: .*{says}"):
            take()


def test_a_class_beyond_the_config_passes_where_there_is_a_class_for_the_rest() -> None:
    source = memory("./a")
    source.files["maps", "./a"] = png(np.full((4, 4, 1), 7, np.uint8))
    assert dataset(source, use_dont_care=True)[0, 0].arrays["maps"].max() == 7
