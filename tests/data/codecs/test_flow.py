"""Optical flow: its files, its vectors after augmentations, its colors."""

from __future__ import annotations

import colorsys
import random
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from images import png
from small_data import load

from imagier.data.augmentation.augment import Augmenter
from imagier.data.augmentation.warp import Part
from imagier.data.codec import InputType, Stored
from imagier.data.codecs.flow import LARGEST_PX, UNITS_PER_PX, Codec, encode_flow, unpack
from imagier.errors import UserError

FLOW = Codec(InputType(name="flow", ext="png"))
HEIGHT, WIDTH = 60, 80


def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The frame before, at any place: an image without edges, H x W x 1, float32."""
    waves = np.sin(x / 7 + 1) * np.cos(y / 9) + 0.5 * np.sin((x + 2 * y) / 16)
    return waves[..., None].astype(np.float32)


def make_pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame, the one before, and the flow from the first to the second: a turn with a zoom and a shift."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    flow = np.stack([0.03 * (x - 40) + 0.05 * (y - 30) + 3, -0.05 * (x - 40) + 0.02 * (y - 30) - 2], axis=-1)
    return paint(x + flow[..., 0], y + flow[..., 1]), paint(x, y), flow


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    "keys",
    [
        {"resize_h_w": "60, 80"},
        {"resize_h_w": "60, 80", "horizontal_flip": True},
        {"resize_h_w": "120, 120"},
        {"resize_h_w": "40, 64"},
        {"resize_smallest_side": 90, "random_crop_h_w": "64, 72", "horizontal_flip": True},
        {"resize_h_w": "60, 80", "rotate": 35},
        {"resize_h_w": "60, 80", "random_scale_limit": 0.8, "random_crop_h_w": "50, 70", "rotate": 20},
        {"resize_h_w": "60, 80", "random_rotate_90": True, "horizontal_flip": True},
        {"random_resize_h_w_aspect": "70, 50, (0.5, 1.5)"},
    ],
    ids=str,
)
def test_the_frame_before_warped_by_the_flow_stays_the_frame(keys: dict[str, Any]) -> None:
    frame, before, vectors = make_pair()
    stored = load(FLOW, encode_flow(vectors, np.ones((HEIGHT, WIDTH), bool)), "png", "a.png")
    augmenter = Augmenter(keys)
    for seed in range(6):
        drawn = augmenter.draw((HEIGHT, WIDTH), random.Random(seed))
        now, past = drawn.apply(frame), drawn.apply(before)
        moved = FLOW.augment(Stored(stored, (HEIGHT, WIDTH)), drawn)
        assert moved.shape == (*drawn.size, 3) and moved.dtype == np.float32
        known = moved[..., 2] > 0
        assert known.mean() > 0.4
        error = np.abs(warp(past, moved) - now[..., 0])[known].mean()
        still = np.abs(past - now)[..., 0][known].mean()
        assert error < 0.02 and still > 10 * error and still > 0.1


def test_vectors_that_lead_out_of_a_crop_are_unknown() -> None:
    vectors = np.zeros((20, 30, 2))
    vectors[..., 0] = -4
    stored = Stored(load(FLOW, encode_flow(vectors, np.ones((20, 30), bool)), "png", "a.png"), (20, 30))
    drawn = Augmenter({"resize_h_w": "20, 30", "center_crop_h_w": "10, 10"}).draw((20, 30), random.Random(0))
    moved = FLOW.augment(stored, drawn)
    np.testing.assert_array_equal(moved[..., 2], np.tile(np.arange(10) >= 4, (10, 1)))
    assert (moved[moved[..., 2] == 0] == 0).all()


def test_a_file_holds_every_sixty_fourth_of_a_pixel_and_what_is_unknown() -> None:
    numbers = np.arange(-LARGEST_PX * UNITS_PER_PX, LARGEST_PX * UNITS_PER_PX + 1, 13)[: 200 * 25]
    vectors = np.stack([numbers, numbers[::-1]], axis=-1).reshape(200, -1, 2) / UNITS_PER_PX
    known = np.random.default_rng(0).random(vectors.shape[:2]) < 0.5
    found = unpack(load(FLOW, encode_flow(vectors, known), "png", "a.png"))
    np.testing.assert_array_equal(found[..., 2], known)
    np.testing.assert_array_equal(found[..., :2], vectors * known[..., None])


@pytest.mark.parametrize("number", [LARGEST_PX + 1, -600.0, np.nan, np.inf])
def test_what_a_file_cannot_hold_is_unknown(number: float) -> None:
    vectors = np.zeros((4, 5, 2))
    vectors[1, 2, 1] = number
    found = unpack(load(FLOW, encode_flow(vectors, np.ones((4, 5), bool)), "png", "a.png"))
    assert found[1, 2].tolist() == [0, 0, 0] and found[..., 2].sum() == 19


def test_a_file_of_kitti_is_read_as_its_development_kit_says() -> None:
    # "readme.txt" of the stereo/flow 2015 kit: u = (R - 2^15) / 64, v = (G - 2^15) / 64, valid = B.
    rgb = np.array([[[2**15 + 96, 2**15 - 64, 1], [5, 7, 0]]], np.uint16)
    found = unpack(load(FLOW, png(rgb), "png", "a.png"))
    np.testing.assert_array_equal(found, [[[1.5, -1, 1], [0, 0, 0]]])


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.uint16)], ids=["8-bit", "gray"]
)
def test_other_images_are_refused(array: np.ndarray) -> None:
    with pytest.raises(UserError) as caught:
        load(FLOW, png(array), "png", "set/flow/7.png")
    assert (caught.value.code, caught.value.where) == ("not-flow", "set/flow/7.png")


def test_networks_see_vectors_first_and_then_the_confidence() -> None:
    batch = torch.rand(2, 3, 4, 5, 3)
    torch.testing.assert_close(FLOW.expand(batch), batch.permute(0, 1, 4, 2, 3))


def test_colors_show_the_direction_and_the_length() -> None:
    flow = np.zeros((1, 4, 3), np.float32)
    flow[0, :, :2], flow[0, :, 2] = [[8, 0], [0, 4], [0, 0], [5, 5]], [1, 1, 1, 0]
    colors = FLOW.to_rgb(flow)
    assert colors[0, 0].tolist() == [255, 0, 0]  # to the right
    down = np.array(colorsys.hsv_to_rgb(90 / 360, 4 / 8, 1)) * 255
    np.testing.assert_allclose(colors[0, 1], down, atol=1)
    assert colors[0, 2].tolist() == [255, 255, 255]  # nothing moves
    assert colors[0, 3].max() < 60  # unknown


@pytest.mark.parametrize("size", [(40, 40), (30, 60)])
def test_the_flow_of_a_part_leads_to_the_same_part_of_the_frame_before(size: tuple[int, int]) -> None:
    frame, before, vectors = make_pair()
    flow = np.dstack([vectors, np.ones((HEIGHT, WIDTH))]).astype(np.float32)
    part = Part(15, 45, 20, 60)
    cut = FLOW.crop(flow, part, size)
    height, width = size
    one, other = (cv2.resize(image[15:45, 20:60], (width, height)) for image in (frame, before))
    known = cut[..., 2] > 0
    assert 0.6 < known.mean() < 1 and not cut[~known].any()
    assert np.abs(warp(other, cut) - one)[known].max() < 0.12
    y, x = np.mgrid[:height, :width]
    assert (x + cut[..., 0])[known].max() <= width - 1 and (y + cut[..., 1])[known].min() >= 0


def test_normalize_has_no_meaning_and_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        Codec(InputType(name="flow", ext="png", normalize=True))
    assert (caught.value.code, caught.value.where) == ("no-effect", "data.input_types: flow: normalize")
