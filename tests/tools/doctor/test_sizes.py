"""Sizes before and after augmentation, against the augmentations themselves."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from doctoring import IMAGES, MAPS, areas, examine, files, found, make_split, texts
from images import Memory, png, smooth
from small_data import build

from imagier.data.augmentation.augment import Augmenter
from imagier.data.datasets.paired_images import Dataset
from imagier.errors import UserError

CROP: dict[str, Any] = {"resize_smallest_side": 24, "random_crop_h_w": "24, 32"}


def of_sizes(*sizes: tuple[int, int]) -> dict[tuple[str, str], bytes]:
    """Pairs of these sizes."""
    content = {}
    for i, (height, width) in enumerate(sizes):
        content["images", f"s/{i}"] = png(smooth(height, width, seed=i))
        content["maps", f"s/{i}"] = png(areas(max(height, width), seed=i)[:height, :width])
    return content


def test_images_for_which_a_crop_is_too_large_are_those_at_which_the_data_set_stops() -> None:
    content = of_sizes((30, 40), (30, 30), (40, 30), (24, 33), (25, 33))
    data = build(Dataset, [Memory(content, "train")], codecs=[IMAGES, MAPS], augmentations=CROP)
    stops = []
    for index in range(len(data)):
        try:
            data[0, index]
        except UserError as error:
            stops.append(str(error))
    finding = found(examine(make_split(content, augmentations=CROP)), "too small")
    assert texts(finding) == stops
    assert len(stops) == 2


def test_sizes_that_no_batch_can_hold_are_an_error_unless_a_batch_is_one_sample() -> None:
    content = of_sizes((30, 40), (30, 40), (40, 40))
    only_resized = {"resize_smallest_side": 24}
    finding = found(examine(make_split(content, augmentations=only_resized)), "different sizes")
    augmenter = Augmenter(only_resized)
    for size in ((30, 40), (40, 40)):
        height, width = augmenter.draw(size, random.Random(0)).size
        assert f"{height} x {width}" in finding.what
    assert examine(make_split(content, augmentations=only_resized, batch_size=1)).errors == 0
    assert examine(make_split(content, augmentations=only_resized, is_cut=True)).errors == 0


def test_a_sample_is_as_large_as_the_largest_of_its_images() -> None:
    content = of_sizes((24, 32))
    content["maps", "s/0"] = png(areas(64)[:20])  # its 64 columns make room for the crop
    crop = {"resize_smallest_side": 24, "random_crop_h_w": "24, 60"}
    assert examine(make_split(content, augmentations=crop)).errors == 0


def test_images_that_are_enlarged_much_are_a_warning() -> None:
    finding = found(
        examine(make_split(of_sizes((10, 10), (30, 30)), augmentations={"resize_h_w": "24, 24"})), "enlarged"
    )
    assert texts(finding) == ["train/images/s/0.png: 10 x 10"]


@pytest.mark.parametrize(("size", "errors", "warnings"), [((30, 40), 0, 0), ((40, 30), 1, 0), ((30, 50), 0, 1)])
def test_partners_of_another_shape_are_a_warning_and_those_on_their_side_an_error(
    size: tuple[int, int], errors: int, warnings: int
) -> None:
    content = of_sizes((30, 40))
    content["maps", "s/0"] = png(areas(50)[: size[0], : size[1]])
    diagnosis = examine(make_split(content))
    assert diagnosis.errors == errors
    assert len([f for f in diagnosis.findings if "of another shape" in f.what]) == warnings
    data = build(Dataset, [Memory(content)], codecs=[IMAGES, MAPS], augmentations={"resize_h_w": "32, 32"})
    if errors:
        with pytest.raises(UserError, match="on its side"):
            data[0, 0]
    else:
        data[0, 0]


def test_half_as_large_maps_are_fine() -> None:
    content = files(2)
    for i in range(2):
        content["maps", f"s/{i:02d}"] = png(areas(16, seed=i)[:, np.arange(20) % 16])
    assert not [f for f in examine(make_split(content)).findings if "shape" in f.what]
