"""Augmentations as a list: sizes, order, draws; against plain `random`, numpy, OpenCV and torch."""

from __future__ import annotations

import pickle
import random
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from augmenting import Scripted, augment, by_hand, carried_out, nearest, resized, same_size
from images import noise, smooth

from imagier.data.augmentation.augment import Augmenter, find_largest_size, get_crop_size, get_output_size, parse_h_w
from imagier.errors import UserError

# The first resize


@pytest.mark.parametrize(
    ("keys", "stored", "expected"),
    [
        ({"resize_smallest_side": 256}, (478, 640), (256, 343)),
        ({"resize_smallest_side": 256}, (640, 478), (343, 256)),
        ({"resize_smallest_side": 4}, (8, 9), (4, 4)),  # 4.5 goes to the even 4
        ({"resize_smallest_side": 4}, (8, 11), (4, 6)),  # 5.5 goes to the even 6
        ({"resize_smallest_side": 4}, (9, 8), (4, 4)),
        ({"resize_smallest_side": "8, 16"}, (10, 10), (16, 16)),
        ({"resize_smallest_side": "8, 16"}, (10, 40), (8, 32)),
        ({"resize_smallest_side": "8, 16"}, (10, 20), (8, 16)),
        ({"resize_smallest_side": "16,8"}, (10, 10), (16, 16)),
        ({"resize_h_w": "5, 7"}, (20, 30), (5, 7)),
        ({"resize_h_w": "5, 7"}, (2, 3), (5, 7)),
    ],
)
def test_size_of_the_first_resize(keys: dict, stored: tuple[int, int], expected: tuple[int, int]) -> None:
    out = augment(keys, {"images": noise(*stored), "map": noise(*stored, 1)})
    assert {x.shape for x in out.images.values()} == {(*expected, 3), (*expected, 1)}


@pytest.mark.parametrize("key", ["random_crop_h_w", "center_crop_h_w"])
def test_a_crop_alone_squashes_the_whole_image_to_its_size(key: str) -> None:
    image = noise(20, 30)
    out = augment({key: "8, 6"}, {"images": image})
    np.testing.assert_array_equal(out.images["images"], resized(image, (8, 6), False))


def test_images_of_several_sizes_end_at_one_size_found_from_the_largest_height_and_width() -> None:
    images = {"images": noise(10, 8), "map": noise(5, 16, 1), "depth": noise(4, 4, 1)}
    assert find_largest_size([x.shape[:2] for x in images.values()]) == (10, 16)
    out = augment({"resize_smallest_side": 5}, images)
    assert {name: x.shape for name, x in out.images.items()} == {
        "images": (5, 8, 3),
        "map": (5, 8, 1),
        "depth": (5, 8, 1),
    }


@pytest.mark.parametrize("stored", [(5, 7), (16, 12), (31, 64), (478, 640)])
@pytest.mark.parametrize("size", [(8, 8), (13, 29), (256, 344)])
@pytest.mark.parametrize("below", [256, 65536])
def test_masks_are_resized_by_the_index_formula_of_nearest_neighbors(
    stored: tuple[int, int], size: tuple[int, int], below: int
) -> None:
    image = noise(*stored, 1, below=below)
    out = augment({"resize_h_w": f"{size[0]}, {size[1]}"}, {"map": image}).images["map"]
    np.testing.assert_array_equal(out, nearest(image, *size))
    by_torch = F.interpolate(torch.from_numpy(image[None, ..., 0].astype(np.float32))[None], size, mode="nearest")
    np.testing.assert_array_equal(out[..., 0], by_torch[0, 0].numpy())


@pytest.mark.parametrize("size", [(8, 8), (13, 29), (64, 48)])
def test_images_are_resized_linearly_without_antialias_within_one_gray_level_of_torch(size: tuple[int, int]) -> None:
    image = noise(31, 40)
    out = augment({"resize_h_w": f"{size[0]}, {size[1]}"}, {"images": image}).images["images"]
    channels_first = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    by_torch = F.interpolate(channels_first, size, mode="bilinear", align_corners=False, antialias=False)
    assert np.abs(out - by_torch[0].permute(1, 2, 0).numpy()).max() <= 1


def test_the_interpolator_serves_the_first_resize_of_images_and_nothing_else() -> None:
    images = {"images": smooth(20, 20), "map": noise(20, 20, 1)}
    keys = {"resize_h_w": "10, 10", "random_scale_limit": 1.0}
    out = carried_out(Augmenter(keys, "INTER_AREA"), images, Scripted(0.5, 0.5, 0.5, 0.5)).images
    means = images["images"].reshape(10, 2, 10, 2, 3).mean(axis=(1, 3))
    first = resized(images["images"], (10, 10), False, cv2.INTER_AREA)
    assert np.abs(first - means).max() <= 1
    np.testing.assert_array_equal(out["images"], resized(first, (15, 15), False))
    np.testing.assert_array_equal(out["map"], augment(keys, images, 0.5, 0.5).images["map"])


def test_where_there_is_no_first_resize_the_interpolator_serves_nothing() -> None:
    image = smooth(20, 30)
    for keys in ({"random_scale_limit": 1.0}, {"rotate": 20}):
        linear, cubic = (
            carried_out(
                Augmenter({**same_size(20, 30), **keys}, name), {"a": image}, Scripted(0.5, 0.5, 0.5, 0.7)
            ).images["a"]
            for name in ("INTER_LINEAR", "INTER_CUBIC")
        )
        np.testing.assert_array_equal(cubic, linear)


# The draws


DRAWS: list[tuple[dict[str, Any], list[tuple]]] = [
    ({"rotate": 4}, [("random",), ("uniform", -4, 4)]),
    ({"rotate": 0}, [("random",), ("uniform", 0, 0)]),
    ({"random_rotate_90": True}, [("random",), ("randint", 0, 3)]),
    ({"random_scale_limit": 0.2}, [("random",), ("uniform", 1, 1.2)]),
    ({"random_crop_h_w": "4, 4"}, [("random",), ("random",), ("random",)]),
    ({"center_crop_h_w": "4, 4"}, [("random",)]),
    ({"horizontal_flip": True}, [("random",)]),
    ({"horizontal_flip": False}, []),
    (
        {"contrast": {"brightness_limit": 0.1, "contrast_limit": [0.0, 0.3], "p": 0.9}},
        [("random",), ("uniform", 0.0, 0.3), ("uniform", -0.1, 0.1)],
    ),
    ({"blur": {"blur_limit": 7, "p": 0.9}}, [("random",), ("choice", (3, 5, 7))]),
    ({"blur": {"blur_limit": [5, 8], "p": 0.9}}, [("random",), ("choice", (5, 7))]),
    ({"compression": {"quality_lower": 70, "p": 0.9}}, [("random",), ("randint", 70, 100)]),
    ({"gamma": {"gamma_limit_lb": 80, "gamma_limit_ub": 120, "p": 0.9}}, [("random",), ("randint", 80, 120)]),
]


@pytest.mark.parametrize(("keys", "draws"), DRAWS, ids=[f"{next(iter(keys))}-{len(draws)}" for keys, draws in DRAWS])
def test_the_sequence_of_draws_is_that_of_the_reference(keys: dict, draws: list[tuple]) -> None:
    rng = Scripted(*[0.3] * 20)
    carried_out(Augmenter({**same_size(8, 8), **keys}), {"images": noise(8, 8)}, rng)
    assert rng.asked == [("random",), ("random",), *draws]


ALWAYS = {"rotate", "random_scale_limit", "random_crop_h_w", "center_crop_h_w"}


@pytest.mark.parametrize(("keys", "draws"), [entry for entry in DRAWS if not ALWAYS & set(entry[0])])
def test_an_operation_whose_gate_is_closed_draws_no_parameter(keys: dict, draws: list[tuple]) -> None:
    images = {"images": noise(8, 8)}
    rng = Scripted(0.5, 0.5, 0.95)
    out = carried_out(Augmenter({**same_size(8, 8), **keys}), images, rng)
    assert rng.asked == [("random",)] * (2 + bool(draws))
    np.testing.assert_array_equal(out.images["images"], images["images"])


def test_operations_run_in_the_order_of_the_config_after_the_resize() -> None:
    image = noise(12, 12)
    draws = (0.1, 0.4, 0.0, 0.0)  # flip; crop at the left
    flip_crop = augment(
        {"horizontal_flip": True, "random_crop_h_w": "4, 4", "resize_h_w": "12, 12"}, {"a": image}, *draws
    )
    np.testing.assert_array_equal(flip_crop.images["a"], image[:4, 8:][:, ::-1])
    crop_flip = augment(
        {"random_crop_h_w": "4, 4", "resize_h_w": "12, 12", "horizontal_flip": True}, {"a": image}, 0.4, 0.0, 0.0, 0.1
    )
    np.testing.assert_array_equal(crop_flip.images["a"], image[:4, :4][:, ::-1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("keys", "stored"),
    [
        (
            {"resize_smallest_side": 32, "rotate": 0, "random_rotate_90": True, "horizontal_flip": True}
            | {"random_crop_h_w": "24, 28"},
            (48, 47),
        ),
        ({"random_scale_limit": 0.5, "random_rotate_90": True, "random_crop_h_w": "20, 20"}, (40, 50)),
        ({"horizontal_flip": True, "random_crop_h_w": "36, 40", "rotate": 20}, (40, 50)),
        ({"horizontal_flip": False, "rotate": 4, "random_rotate_90": True}, (40, 50)),
    ],
)
def test_a_list_with_one_operation_that_resamples_is_bit_identical_to_a_second_writing(
    keys: dict, stored: tuple[int, int], seed: int
) -> None:
    """And so to the reference: that writing was compared with its tensors."""
    keys = {"resize_smallest_side": 40} | keys
    images = {
        "map": noise(*stored, 1, below=20),
        "instances": noise(*stored, 1, below=65536),
        "images": noise(*stored, 3, seed=seed),
        "edges": smooth(*stored, 1, seed=seed),
    }
    masks = ("map", "instances")
    out = carried_out(Augmenter(keys), images, random.Random(seed), masks)
    expected, flipped = by_hand(keys, images, masks, random.Random(seed))
    assert out.is_flipped == flipped
    for name in images:
        assert out.images[name].dtype == images[name].dtype
        np.testing.assert_array_equal(out.images[name], expected[name], err_msg=name)


@pytest.mark.parametrize("seed", range(8))
def test_one_draw_serves_all_types(seed: int) -> None:
    keys = {
        "resize_h_w": "20, 24",
        "random_scale_limit": 0.3,
        "rotate": 30,
        "horizontal_flip": True,
        "random_rotate_90": True,
        "random_crop_h_w": "16, 16",
        "contrast": {"brightness_limit": 0.3, "contrast_limit": 0.3, "p": 0.5},
        "motion_blur": {"blur_limit": 7, "p": 0.5},
        "gamma": {"gamma_limit_lb": 50, "gamma_limit_ub": 150, "p": 0.5},
    }
    image = noise(20, 24)
    out = carried_out(
        Augmenter(keys),
        {"a": image, "map": image, "b": image, "copy": image},
        random.Random(seed),
        masks=("map", "copy"),
    ).images
    np.testing.assert_array_equal(out["a"], out["b"])
    np.testing.assert_array_equal(out["map"], out["copy"])


def test_masks_keep_to_their_values_whatever_happens() -> None:
    keys = {
        "resize_h_w": "37, 31",
        "rotate": 30,
        "random_scale_limit": 0.7,
        "blur": {"blur_limit": 7, "p": 1},
        "motion_blur": {"blur_limit": 7, "p": 1},
        "contrast": {"brightness_limit": 0.3, "contrast_limit": 0.3, "p": 1},
        "compression": {"quality_lower": 5, "p": 1},
        "gamma": {"gamma_limit_lb": 50, "gamma_limit_ub": 60, "p": 1},
        "random_resize_h_w_aspect": "16, 16, (0.5, 2)",
    }
    classes = np.array([3, 100, 255], np.uint8)[noise(20, 24, 1, below=3)]
    out = carried_out(Augmenter(keys), {"map": classes, "images": noise(20, 24)}, random.Random(1)).images
    assert set(np.unique(out["map"])) == {3, 100, 255}


# What comes out, and what is refused


def test_what_comes_out_is_contiguous_and_what_went_in_is_unchanged() -> None:
    images = {"images": noise(20, 30), "map": noise(20, 30, 1)}
    before = {name: x.copy() for name, x in images.items()}
    keys = {"resize_h_w": "20, 30", "random_crop_h_w": "8, 8", "random_rotate_90": True, "horizontal_flip": True}
    out = augment(keys, images, 0.5, 0.5, 0.5, 0.1, 0.3, 0.1)
    assert out.is_flipped
    assert all(x.flags.c_contiguous for x in out.images.values())
    for name in images:
        np.testing.assert_array_equal(images[name], before[name])


def test_an_augmenter_survives_pickling() -> None:
    """Workers that are not forked get it that way."""
    keys = {"resize_smallest_side": 12, "rotate": 9, "random_crop_h_w": "8, 8", "blur": {"blur_limit": 3, "p": 0.5}}
    augmenter = Augmenter(keys, "INTER_AREA")
    copy = pickle.loads(pickle.dumps(augmenter))
    images = {"images": noise(20, 30), "map": noise(20, 30, 1)}
    for seed in range(4):
        out = [carried_out(one, images, random.Random(seed)).images for one in (augmenter, copy)]
        for name in images:
            np.testing.assert_array_equal(out[0][name], out[1][name])


@pytest.mark.parametrize(
    ("keys", "crop", "output"),
    [
        ({"resize_smallest_side": 256}, None, None),
        ({"resize_smallest_side": 256, "random_crop_h_w": "24, 28"}, (24, 28), (24, 28)),
        ({"resize_smallest_side": 32, "center_crop_h_w": "24,28", "random_crop_h_w": "8, 9"}, (8, 9), (8, 9)),
        ({"resize_h_w": "24, 28"}, None, (24, 28)),
        ({"resize_h_w": "24, 28", "random_scale_limit": 0.1}, None, None),
        ({"random_resize_h_w_aspect": "24, 28, (0.9, 1.1)"}, None, (24, 28)),
        ({"resize_h_w": "20, 40", "random_resize_h_w_aspect": "24, 28, (0.9, 1.1)"}, None, (24, 28)),
    ],
)
def test_the_size_of_what_comes_out_is_known_where_it_does_not_depend_on_the_image(
    keys: dict, crop: tuple[int, int] | None, output: tuple[int, int] | None
) -> None:
    assert (get_crop_size(keys), get_output_size(keys)) == (crop, output)
    if output:
        assert augment(keys, {"a": noise(30, 40)}).images["a"].shape == (*output, 3)


@pytest.mark.parametrize("text", ["256", "a, b", "1, 2, 3", "1.5, 2", "-1, 2", "0, 2", ""])
def test_a_size_that_is_none_is_quoted(text: str) -> None:
    with pytest.raises(UserError, match=f"^expected 'height, width' in pixels, got '{text}'$"):
        parse_h_w(text)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "augmentations need one of resize_smallest_side, resize_h_w, random_crop_h_w, center_crop_h_w"),
        ({"horizontal_flip": True}, "augmentations need one of"),
        ({"random_resize_h_w_aspect": "8, 8"}, "random_resize_h_w_aspect: expected 'h, w, (smallest"),
        ({"random_resize_h_w_aspect": "8, 8, (a, b)"}, "random_resize_h_w_aspect: expected 'h, w, (smallest"),
        ({"random_resize_h_w_aspect": "8, 8, (2, 1)"}, "random_resize_h_w_aspect: expected 'h, w, (smallest"),
        ({"resize_h_w": "8, 8", "blur": {"blur_limit": 2, "p": 1.0}}, "blur_limit: expected .* got 2"),
        ({"resize_h_w": "8, 8", "motion_blur": {"blur_limit": [1, 5], "p": 1.0}}, "blur_limit: expected .* got .1, 5."),
    ],
)
def test_a_list_of_augmentations_that_cannot_work_is_refused_at_once(keys: dict, says: str) -> None:
    with pytest.raises(UserError, match=says.replace("(", r"\(")):
        Augmenter(keys)


@pytest.mark.parametrize("name", ["LINEAR", "INTER_MAGIC", "imread"])
def test_an_unknown_interpolator_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"^interpolator '{name}': OpenCV has no such constant"):
        Augmenter({"resize_h_w": "8, 8"}, name)
