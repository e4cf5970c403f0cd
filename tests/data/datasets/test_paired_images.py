"""Samples of images that belong together by name."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from images import Memory, encoded, noise, png, smooth, write
from PIL import Image
from small_data import build, codec_for

from imagier.data.datasets.paired_images import Dataset
from imagier.data.sample import Number
from imagier.data.sources.folder import FolderSource
from imagier.errors import UserError

IMAGES = codec_for(name="images", ext="png", num_channels=3)
MAPS = codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=5)
RANDOM = {"resize_h_w": "6, 7", "rotate": 20, "random_scale_limit": 0.5, "horizontal_flip": True} | {
    "random_crop_h_w": "4, 4"
}


def memory(*keys: str, name: str = "memory") -> Memory:
    """An image 8 x 6 and a map 4 x 10 for every key."""
    files = {}
    for seed, key in enumerate(keys):
        files["images", key] = png(noise(8, 6, seed=seed))
        files["maps", key] = png(noise(4, 10, 1, seed=seed, below=5))
    return Memory(files, name)


def dataset(*sources: Any, augmentations: Any = RANDOM, **options: Any) -> Dataset:
    return build(Dataset, sources, codecs=[IMAGES, MAPS], augmentations=augmentations, **options)


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
    pair = [dataset(source, is_training=training) for training in (False, True)]
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
    image = {("images", f"./{i}"): png(noise(8, 6)) for i in range(4)}
    source = Memory(image | {("maps", f"./{i}"): png(noise(8, 6, 1, below=5)) for i in range(4)})
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
        ("images", b"hello", "not an image, or damaged"),
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
    maps = codec_for(name="maps", ext="png", num_classes=5, use_dont_care=True)
    data = build(Dataset, [source], codecs=[IMAGES, maps], augmentations=RANDOM)
    assert data[0, 0].arrays["maps"].max() == 7


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_photograph_that_exif_turns_and_its_map_that_it_does_not_are_told(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / "images" / "a.jpg", encoded(smooth(16, 24), "JPEG", exif=exif))
    write(tmp_path / "maps" / "a.png", png(noise(16, 24, 1, below=5)))
    source = FolderSource(tmp_path, {"images": "jpg", "maps": "png"})
    turned = dataset(source)
    says = (
        rf"maps/a\.png: is 16 x 24, but its partner {tmp_path}/images/a\.jpg is 24 x 16: one of them lies on its side"
    )
    for take in (lambda: turned.load(0), lambda: turned[0, 0]):
        with pytest.raises(UserError, match=says):
            take()
    write(tmp_path / "maps" / "a.png", png(noise(24, 16, 1, below=5)))
    assert turned[0, 0].numbers["original_h_w"] == (24, 16)


# JPEG at reduced scale

AT_32 = {"resize_h_w": "32, 32"}
SMALL = {"resize_smallest_side": 32, "random_scale_limit": 0.2, "horizontal_flip": True, "random_crop_h_w": "32, 32"}


def photographs(root: Path, height: int, width: int, **options: Any) -> FolderSource:
    write(root / "images" / "a.jpg", encoded(smooth(height, width), "JPEG", quality=95, **options))
    write(root / "maps" / "a.png", png(noise(4, 5, 1, below=5).repeat(height // 4, 0).repeat(width // 5, 1)))
    return FolderSource(root, {"images": "jpg", "maps": "png"})


def modes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With what each file is decoded."""
    seen: list[int] = []
    original = cv2.imdecode

    def decode(data: np.ndarray, mode: int) -> Any:
        seen.append(mode if mode == cv2.IMREAD_UNCHANGED else mode & ~cv2.IMREAD_IGNORE_ORIENTATION)
        return original(data, mode)

    monkeypatch.setattr(cv2, "imdecode", decode)
    return seen


@pytest.mark.parametrize(
    ("size", "mode"),
    [
        ((320, 400), cv2.IMREAD_REDUCED_COLOR_8),
        ((304, 400), cv2.IMREAD_REDUCED_COLOR_4),  # an eighth is 38, and the largest scale makes 39 of 32
        ((80, 100), cv2.IMREAD_REDUCED_COLOR_2),
        ((76, 100), cv2.IMREAD_COLOR),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_its_augmentations_need(
    tmp_path: Path, size: tuple[int, int], mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photographs(tmp_path, *size)
    seen = modes(monkeypatch)
    plain, reduced = dataset(source, augmentations=SMALL), dataset(source, augmentations=SMALL, reduced_jpeg=True)
    for epoch in range(3):
        one, other = plain[epoch, 0], reduced[epoch, 0]
        assert one.numbers == other.numbers
        assert one.numbers["original_h_w_images"] == size
        np.testing.assert_array_equal(one.arrays["maps"], other.arrays["maps"])
        difference = np.abs(one.arrays["images"].astype(int) - other.arrays["images"])
        assert difference.mean() < 2  # the plain way takes 4 pixels of the many, the other their mean
    assert seen == [cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED, mode, cv2.IMREAD_UNCHANGED] * 3
    np.testing.assert_array_equal(reduced.load(0)["images"], plain.load(0)["images"])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_that_exif_turns_has_its_size_and_its_place_at_reduced_scale_too(
    tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = (317, 403) if orientation == 1 else (316, 404)
    write(tmp_path / "images" / "a.jpg", encoded(smooth(*stored), "JPEG", quality=95, exif=exif))
    source = FolderSource(tmp_path, {"images": "jpg"})
    pair = [
        build(Dataset, [source], codecs=[IMAGES], augmentations=AT_32, reduced_jpeg=reduced)[0, 0]
        for reduced in (False, True)
    ]
    assert pair[0].numbers == pair[1].numbers
    assert pair[1].numbers["original_h_w"] == (stored if orientation < 5 else stored[::-1])
    assert np.abs(pair[0].arrays["images"].astype(int) - pair[1].arrays["images"]).mean() < 2


def test_masks_and_other_formats_are_never_decoded_at_reduced_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("images", "names"):
        write(tmp_path / kind / "a.jpg", encoded(smooth(320, 400), "JPEG"))
    write(tmp_path / "depth" / "a.png", encoded(smooth(320, 400), "PNG"))
    kinds = [IMAGES, codec_for(name="names", ext="jpg", is_mask=True), codec_for(name="depth", ext="png")]
    source = FolderSource(tmp_path, {"images": "jpg", "names": "jpg", "depth": "png"})
    seen = modes(monkeypatch)
    build(Dataset, [source], codecs=kinds, augmentations=SMALL, reduced_jpeg=True)[0, 0]
    assert seen == [cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED]


# Roots with weights


def weighted(**options: Any) -> Dataset:
    """One sample, three samples, two."""
    sources = [memory("a/0", name="a"), memory("b/0", "b/1", "b/2", name="b"), memory("c/0", "c/1", name="c")]
    return dataset(*sources, augmentations={"resize_h_w": "2, 2"}, root_weights=[3, 1, 2.0], **options)


def test_in_training_roots_are_drawn_by_their_weights_and_samples_of_a_root_alike() -> None:
    data = weighted(is_training=True)
    drawn = Counter(data[epoch, index].keys["images"] for epoch in range(200) for index in range(6))
    odds = {"a/0": 3 / 6, "b/0": 1 / 18, "b/1": 1 / 18, "b/2": 1 / 18, "c/0": 1 / 6, "c/1": 1 / 6}
    assert len(data) == 6
    assert drawn.keys() == odds.keys()
    for key, share in odds.items():
        assert abs(drawn[key] - 1200 * share) < 4 * (1200 * share * (1 - share)) ** 0.5


def test_what_is_drawn_depends_on_seed_epoch_and_index_alone() -> None:
    places = [(seed, epoch, index) for seed in (0, 5) for epoch in range(3) for index in range(6)]

    def drawn(place: tuple[int, int, int]) -> str:
        return weighted(is_training=True, seed=place[0])[place[1:]].keys["images"]

    first = {place: drawn(place) for place in places}
    random.seed(1)
    assert {place: drawn(place) for place in reversed(places)} == first
    assert len(set(first.values())) == 6


def test_held_out_samples_are_never_drawn() -> None:
    data = weighted(is_training=False)
    assert [data[0, i].keys["images"] for i in range(6)] == ["a/0", "b/0", "b/1", "b/2", "c/0", "c/1"]


def test_a_drawn_sample_that_is_wrong_is_named() -> None:
    data = weighted(is_training=True)
    for source in data.files.sources:
        for key in source.files:  # type: ignore[attr-defined]
            source.files[key] = b""  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"^[abc]/images/[abc]/\d\.png: the file is empty"):
        data[0, 0]


# Blocks


@dataclass(frozen=True)
class Sharded(Memory):
    """Two files lie together, then all others."""

    def shards(self, kind: str) -> list[int]:
        return [2, len(self.keys(kind)) - 2]


def test_blocks_are_the_shards_of_all_roots_in_their_order_and_else_one() -> None:
    plain, sharded = memory("a", "b", "c"), Sharded(memory("0", "1", "2", "3", "4").files)
    assert list(dataset(plain).blocks) == [3]
    assert list(dataset(plain, plain).blocks) == [6]
    assert list(dataset(sharded).blocks) == [2, 3]
    assert list(dataset(sharded, plain, sharded).blocks) == [2, 3, 3, 2, 3]
    assert list(dataset(sharded, root_weights=[1.0], is_training=True).blocks) == [5]
    assert list(dataset(sharded, root_weights=[1.0]).blocks) == [2, 3]
