"""Points of the world: their files, what becomes of them in augmentations, their numbers and colors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from images import png
from small_data import load

from imagier.data.augmentation.augment import Augmenter
from imagier.data.codec import InputType, Stored
from imagier.data.codecs.unprojections import LARGEST, Codec, encode_points
from imagier.errors import UserError

POINTS = Codec(InputType(name="unprojections", ext="png"))


def expanded(array: np.ndarray, codec: Codec = POINTS) -> torch.Tensor:
    return codec.expand(torch.from_numpy(array.astype(np.int32))[None])[0, 0]


def test_a_file_holds_every_number_and_none() -> None:
    numbers = np.array([[0, 1, 2, 65_535], [65_536, 2**32 - 1, 2**32, LARGEST]])
    found = expanded(load(POINTS, encode_points(numbers), "png", "a.png"))
    assert (found.dtype, found.shape) == (torch.int64, (2, 4))
    assert found[0, 0] == 0
    assert found.flatten()[1:].tolist() == [number + 1 for number in numbers.flatten()[1:].tolist()]


@pytest.mark.parametrize(
    "keys",
    [
        {"resize_h_w": "12, 16", "horizontal_flip": True},
        {"resize_h_w": "6, 8"},
        {"resize_smallest_side": 24, "random_crop_h_w": "8, 10", "horizontal_flip": True},
        {"resize_h_w": "12, 16", "rotate": 35},
        {"resize_h_w": "12, 16", "random_rotate_90": True, "random_scale_limit": 0.5, "center_crop_h_w": "12, 12"},
    ],
    ids=str,
)
def test_points_go_where_their_pixels_go(keys: dict[str, Any]) -> None:
    """An image whose colors are the numbers of the points, moved alike, shows the same."""
    numbers = np.arange(1, 12 * 16 + 1).reshape(12, 16)
    stored = load(POINTS, encode_points(numbers), "png", "a.png")
    for seed in range(5):
        drawn = Augmenter(keys).draw((12, 16), random.Random(seed))
        moved = POINTS.augment(Stored(stored, (12, 16)), drawn)
        image = drawn.apply(numbers[..., None].astype(np.float32), is_nearest=True, has_colors=False)[..., 0]
        found = expanded(moved)
        is_known = found.numpy() > 0
        assert moved.dtype == np.uint16 and found.shape == drawn.size and is_known.mean() > 0.4
        np.testing.assert_array_equal(found.numpy()[is_known] - 1, image[is_known])
        assert is_known.all() or "rotate" in keys


def test_mirrored_borders_show_no_points() -> None:
    numbers = np.arange(1, 17).reshape(4, 4)
    drawn = Augmenter({"resize_h_w": "4, 4", "rotate": 45}).draw((4, 4), random.Random(1))
    found = expanded(POINTS.augment(Stored(load(POINTS, encode_points(numbers), "png", "a.png"), (4, 4)), drawn))
    assert len(found[found > 0].unique()) == (found > 0).sum() < 16


def test_cells_join_what_is_near_and_keep_what_is_not_known() -> None:
    array = np.array([[[0, 0, 0], [1, 2, 3], [3, 0, 3], [4, 0, 0], [8, 9, 10]]], np.uint16)
    found = expanded(array, Codec(InputType(name="unprojections", ext="png"), cell=4))[0].tolist()
    assert found[0] == 0 and found[1] == found[2] > 0
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.uint16)], ids=["8-bit", "gray"]
)
def test_other_images_are_refused(array: np.ndarray) -> None:
    with pytest.raises(UserError) as caught:
        load(POINTS, png(array), "png", "set/unprojections/7.png")
    assert (caught.value.code, caught.value.where) == ("not-points", "set/unprojections/7.png")


def test_a_point_has_one_color_in_all_frames_and_others_have_others() -> None:
    first = POINTS.to_rgb(np.array([[[1, 2, 3], [0, 0, 0], [1, 2, 4]]], np.uint16))[0]
    second = POINTS.to_rgb(np.array([[[0, 0, 0], [1, 2, 4]]], np.uint16))[0]
    assert first[1].tolist() == [0, 0, 0] and first[2].tolist() == second[1].tolist() != first[0].tolist()


def test_a_frame_without_points_is_remarked() -> None:
    assert [remark.code for remark in POINTS.examine(np.zeros((2, 2, 3), np.uint16))] == ["no-points"]
    assert not POINTS.examine(np.ones((2, 2, 3), np.uint16))
