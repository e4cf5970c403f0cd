"""Augmentations: sizes, order, draws, and pixels, against plain `random`, numpy, OpenCV and torch."""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pictures import noise, smooth

from imagier.data.augment import Augmented, Augmenter, crop_size, original_size, output_size, parse_h_w
from imagier.errors import UserError

Images = dict[str, np.ndarray]


class Scripted(random.Random):
    """Hands out the given numbers in [0, 1), then 0.99, and writes down what it is asked for."""

    def __new__(cls, *numbers: float) -> Scripted:
        return super().__new__(cls)  # before Python 3.11 it takes no more than a seed

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self.numbers = list(numbers)
        self.asked: list[tuple] = []

    def _next(self, *question: object) -> float:
        self.asked.append(question)
        return self.numbers.pop(0) if self.numbers else 0.99

    def random(self) -> float:
        return self._next("random")

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self._next("uniform", a, b)

    def randint(self, a: int, b: int) -> int:
        return a + int((b - a + 1) * self._next("randint", a, b))

    def choice(self, seq: Any) -> Any:
        return seq[int(len(seq) * self._next("choice", tuple(seq)))]


def augment(keys: Mapping[str, Any], images: Images, *numbers: float, masks: tuple[str, ...] = ("map",)) -> Augmented:
    """Augments with these draws after the two that start the sequence."""
    return Augmenter(keys, masks)(images, Scripted(0.5, 0.5, *numbers))


def same_size(height: int, width: int) -> dict[str, str]:
    """A first resize that does nothing to pictures of this size."""
    return {"resize_h_w": f"{height}, {width}"}


def nearest(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """source index = min(floor(target index * source length / target length), source length - 1)"""
    rows = np.minimum(np.arange(height) * picture.shape[0] // height, picture.shape[0] - 1)
    columns = np.minimum(np.arange(width) * picture.shape[1] // width, picture.shape[1] - 1)
    return picture[rows][:, columns]


def resized(picture: np.ndarray, size: tuple[int, int], is_mask: bool, interpolation: int = cv2.INTER_LINEAR) -> Any:
    if is_mask:
        return nearest(picture, *size)
    return cv2.resize(picture, size[::-1], interpolation=interpolation).reshape(*size, picture.shape[2])


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
def test_a_crop_alone_squashes_the_whole_picture_to_its_size(key: str) -> None:
    picture = noise(20, 30)
    out = augment({key: "8, 6"}, {"images": picture})
    np.testing.assert_array_equal(out.images["images"], resized(picture, (8, 6), False))


def test_pictures_of_several_sizes_end_at_one_size_found_from_the_largest_height_and_width() -> None:
    images = {"images": noise(10, 8), "map": noise(5, 16, 1), "depth": noise(4, 4, 1)}
    assert original_size(images) == (10, 16)
    out = augment({"resize_smallest_side": 5}, images)
    assert {name: x.shape for name, x in out.images.items()} == {
        "images": (5, 8, 3),
        "map": (5, 8, 1),
        "depth": (5, 8, 1),
    }


@pytest.mark.parametrize("stored", [(5, 7), (16, 12), (31, 64), (478, 640)])
@pytest.mark.parametrize("size", [(8, 8), (13, 29), (256, 344)])
@pytest.mark.parametrize("below", [256, 65536])
def test_masks_are_resized_by_the_index_formula_of_nearest_neighbours(
    stored: tuple[int, int], size: tuple[int, int], below: int
) -> None:
    picture = noise(*stored, 1, below=below)
    out = augment({"resize_h_w": f"{size[0]}, {size[1]}"}, {"map": picture}).images["map"]
    np.testing.assert_array_equal(out, nearest(picture, *size))
    by_torch = F.interpolate(torch.from_numpy(picture[None, ..., 0].astype(np.float32))[None], size, mode="nearest")
    np.testing.assert_array_equal(out[..., 0], by_torch[0, 0].numpy())


@pytest.mark.parametrize("size", [(8, 8), (13, 29), (64, 48)])
def test_pictures_are_resized_linearly_without_antialias_within_one_grey_level_of_torch(size: tuple[int, int]) -> None:
    picture = noise(31, 40)
    out = augment({"resize_h_w": f"{size[0]}, {size[1]}"}, {"images": picture}).images["images"]
    channels_first = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    by_torch = F.interpolate(channels_first, size, mode="bilinear", align_corners=False, antialias=False)
    assert np.abs(out - by_torch[0].permute(1, 2, 0).numpy()).max() <= 1


def test_the_interpolator_serves_the_first_resize_of_pictures_and_nothing_else() -> None:
    images = {"images": smooth(20, 20), "map": noise(20, 20, 1)}
    keys = {"resize_h_w": "10, 10", "random_scale_limit": 1.0}
    out = Augmenter(keys, ["map"], "INTER_AREA")(images, Scripted(0.5, 0.5, 0.5, 0.5)).images
    means = images["images"].reshape(10, 2, 10, 2, 3).mean(axis=(1, 3))
    first = resized(images["images"], (10, 10), False, cv2.INTER_AREA)
    assert np.abs(first - means).max() <= 1
    np.testing.assert_array_equal(out["images"], resized(first, (15, 15), False))
    np.testing.assert_array_equal(out["map"], nearest(nearest(images["map"], 10, 10), 15, 15))


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
    Augmenter({**same_size(8, 8), **keys}, [])({"images": noise(8, 8)}, rng)
    assert rng.asked == [("random",), ("random",), *draws]


@pytest.mark.parametrize(("keys", "draws"), DRAWS[7:8] + [entry for entry in DRAWS if "p" in str(entry[0].values())])
def test_an_operation_whose_gate_is_closed_draws_no_parameter(keys: dict, draws: list[tuple]) -> None:
    images = {"images": noise(8, 8)}
    rng = Scripted(0.5, 0.5, 0.95)
    out = Augmenter({**same_size(8, 8), **keys}, [])(images, rng)
    assert rng.asked == [("random",)] * (2 + bool(draws))
    np.testing.assert_array_equal(out.images["images"], images["images"])


def test_operations_run_in_the_order_of_the_config_after_the_resize() -> None:
    picture = noise(12, 12)
    draws = (0.1, 0.4, 0.0, 0.0)  # flip; crop at the left
    flip_crop = augment(
        {"horizontal_flip": True, "random_crop_h_w": "4, 4", "resize_h_w": "12, 12"}, {"a": picture}, *draws
    )
    np.testing.assert_array_equal(flip_crop.images["a"], picture[:4, 8:][:, ::-1])
    crop_flip = augment(
        {"random_crop_h_w": "4, 4", "resize_h_w": "12, 12", "horizontal_flip": True}, {"a": picture}, 0.4, 0.0, 0.0, 0.1
    )
    np.testing.assert_array_equal(crop_flip.images["a"], picture[:4, :4][:, ::-1])


def reference(
    keys: Mapping[str, Any], images: Images, masks: tuple[str, ...], rng: random.Random
) -> tuple[Images, bool]:
    """A second writing of the frequent operations, from the description alone."""
    rng.random(), rng.random()
    height = max(x.shape[0] for x in images.values())
    width = max(x.shape[1] for x in images.values())
    side = keys["resize_smallest_side"]
    if height <= width:
        size = side, int(np.round(side * width / height))
    else:
        size = int(np.round(side * height / width)), side
    images = {name: resized(x, size, name in masks) for name, x in images.items()}
    flipped = False
    for key, value in keys.items():
        height, width = next(iter(images.values())).shape[:2]
        if key == "random_scale_limit":
            rng.random()
            scale = 1 + value * rng.random()
            size = int(height * scale), int(width * scale)
            images = {name: resized(x, size, name in masks) for name, x in images.items()}
        elif key == "rotate":
            rng.random()
            angle = -value + 2 * value * rng.random()
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
            for name, x in images.items():
                flags = cv2.INTER_NEAREST if name in masks else cv2.INTER_LINEAR
                turned = cv2.warpAffine(x, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
                images[name] = turned.reshape(x.shape)
        elif key == "horizontal_flip" and value:
            if rng.random() < 0.5:
                flipped = True
                images = {name: np.flip(x, 1) for name, x in images.items()}
        elif key == "random_rotate_90":
            if rng.random() < 0.5:
                for _ in range(rng.randint(0, 3)):
                    images = {name: np.flip(x.transpose(1, 0, 2), 0) for name, x in images.items()}
        elif key == "random_crop_h_w":
            rng.random()
            crop_h, crop_w = map(int, value.split(","))
            y, x0 = int((height - crop_h) * rng.random()), int((width - crop_w) * rng.random())
            images = {name: x[y : y + crop_h, x0 : x0 + crop_w] for name, x in images.items()}
    return images, flipped


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "keys",
    [
        {"resize_smallest_side": 32, "rotate": 0, "random_scale_limit": 0.2, "horizontal_flip": True}
        | {"random_crop_h_w": "24, 28"},
        {"random_scale_limit": 0.5, "rotate": 20, "random_rotate_90": True, "random_crop_h_w": "20, 20"}
        | {"resize_smallest_side": 30},
        {"resize_smallest_side": 40, "horizontal_flip": False, "random_crop_h_w": "40, 40", "rotate": 4},
    ],
)
def test_a_whole_list_of_operations_is_bit_identical_to_a_second_writing(keys: dict, seed: int) -> None:
    images = {
        "map": noise(40, 50, 1, below=20),
        "instances": noise(20, 26, 1, below=65536),
        "images": noise(48, 47, 3, seed=seed),
        "edges": smooth(40, 50, 1, seed=seed),
    }
    masks = ("map", "instances")
    out = Augmenter(keys, masks)(images, random.Random(seed))
    expected, flipped = reference(keys, images, masks, random.Random(seed))
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
    picture = noise(20, 24)
    out = Augmenter(keys, ["map", "copy"])(
        {"a": picture, "map": picture, "b": picture, "copy": picture}, random.Random(seed)
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
    out = Augmenter(keys, ["map"])({"map": classes, "images": noise(20, 24)}, random.Random(1)).images
    assert set(np.unique(out["map"])) == {3, 100, 255}


# Each operation


@pytest.mark.parametrize(("u1", "u2"), [(0, 0), (0.5, 0.25), (0.999, 0.999), (0.2, 0.8)])
def test_place_of_a_random_crop(u1: float, u2: float) -> None:
    picture = noise(20, 30)
    out = augment({**same_size(20, 30), "random_crop_h_w": "8, 9"}, {"a": picture}, 0.9, u1, u2)
    y, x = int((20 - 8) * u1), int((30 - 9) * u2)
    np.testing.assert_array_equal(out.images["a"], picture[y : y + 8, x : x + 9])


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (7, 12), (20, 30)])
def test_a_center_crop_leaves_the_odd_row_and_column_behind(size: tuple[int, int]) -> None:
    picture = noise(20, 30)
    out = augment({**same_size(20, 30), "center_crop_h_w": f"{size[0]}, {size[1]}"}, {"a": picture}).images["a"]
    above, before = (20 - size[0]) // 2, (30 - size[1]) // 2
    below, after = 20 - size[0] - above, 30 - size[1] - before
    assert 0 <= below - above <= 1
    assert 0 <= after - before <= 1
    np.testing.assert_array_equal(out, picture[above : 20 - below, before : 30 - after])


@pytest.mark.parametrize("key", ["random_crop_h_w", "center_crop_h_w"])
@pytest.mark.parametrize("size", ["21, 8", "8, 31"])
def test_a_crop_larger_than_the_picture_is_refused(key: str, size: str) -> None:
    with pytest.raises(UserError, match=r"^crop \d+ x \d+ is larger than the image, 20 x 30 after resizing; lower"):
        augment({**same_size(20, 30), key: size}, {"a": noise(20, 30)})


@pytest.mark.parametrize(("gate", "flipped"), [(0.49, True), (0.5, False)])
def test_a_flip_mirrors_all_types_and_says_so(gate: float, flipped: bool) -> None:
    images = {"images": noise(5, 6), "map": noise(5, 6, 1)}
    out = augment({**same_size(5, 6), "horizontal_flip": True}, images, gate)
    assert out.is_flipped is flipped
    for name, x in images.items():
        np.testing.assert_array_equal(out.images[name], x[:, ::-1] if flipped else x)


def reflect_101(index: np.ndarray, length: int) -> np.ndarray:
    index = np.abs(index)
    return np.where(index >= length, 2 * (length - 1) - index, index)


@pytest.mark.parametrize("name", ["images", "map"])
@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (6, 10)])
def test_a_positive_rotation_is_counter_clockwise_about_half_the_size_with_a_reflected_border(
    name: str, shape: tuple[int, int]
) -> None:
    picture, quarter_turn = noise(*shape), shape[0] == shape[1]
    angle = 90 if quarter_turn else 180
    out = augment({**same_size(*shape), "rotate": 2 * angle}, {name: picture}, 0.5, 0.75).images[name]
    y, x = np.mgrid[: shape[0], : shape[1]]
    if quarter_turn:  # about (n/2, n/2): what lands at (x, y) comes from (n - y, x)
        source_x, source_y = shape[1] - y, x
    else:
        source_x, source_y = shape[1] - x, shape[0] - y
    np.testing.assert_array_equal(out, picture[reflect_101(source_y, shape[0]), reflect_101(source_x, shape[1])])


@pytest.mark.parametrize("turns", range(4))
def test_a_quarter_turn_is_counter_clockwise(turns: int) -> None:
    picture = noise(5, 8)
    out = augment({**same_size(5, 8), "random_rotate_90": True}, {"a": picture}, 0.49, turns / 4).images["a"]
    expected = torch.rot90(torch.from_numpy(picture), turns, (0, 1)).numpy()
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("u", [0, 0.3, 0.5, 0.99])
def test_a_random_scale_truncates_the_new_size(u: float) -> None:
    images = {"images": noise(11, 17), "map": noise(11, 17, 1)}
    out = augment({**same_size(11, 17), "random_scale_limit": 0.5}, images, 0.9, u).images
    size = int(11 * (1 + 0.5 * u)), int(17 * (1 + 0.5 * u))
    np.testing.assert_array_equal(out["images"], resized(images["images"], size, False))
    np.testing.assert_array_equal(out["map"], nearest(images["map"], *size))


@pytest.mark.parametrize("seed", range(20))
def test_random_aspect_is_the_largest_box_of_that_aspect_somewhere_in_the_whole_picture(seed: int) -> None:
    height, width = 60, 90
    y, x = np.mgrid[:height, :width]
    picture = np.stack([y, x], axis=2).astype(np.uint8)  # holds its own coordinates
    keys = {"random_resize_h_w_aspect": "211, 307, (0.5, 2)"}
    out = Augmenter(keys, ["a"])({"a": picture}, random.Random(seed)).images["a"]
    assert out.shape == (211, 307, 2)
    (top, left), (bottom, right) = out[0, 0].astype(int), out[-1, -1].astype(int) + 1
    np.testing.assert_array_equal(out, nearest(picture[top:bottom, left:right], 211, 307))
    draws = random.Random(seed)
    draws.random(), draws.random(), draws.random()
    aspect = np.exp(np.log(0.5) + (np.log(2) - np.log(0.5)) * draws.random())  # uniform in the logarithm
    box_h, box_w = bottom - top, right - left
    assert abs(box_w - box_h * aspect) <= max(1, aspect) / 2 + 1e-9  # within rounding
    assert box_h >= height - 1 or box_w == width
    assert (top, left) == (int((height - box_h) * draws.random()), int((width - box_w) * draws.random()))


def test_random_aspect_after_a_resize_takes_its_box_from_the_resized_picture() -> None:
    picture = smooth(40, 60)
    keys = {"resize_h_w": "20, 20", "random_resize_h_w_aspect": "10, 10, (1, 1)"}
    out = augment(keys, {"a": picture}).images["a"]
    np.testing.assert_array_equal(out, resized(resized(picture, (20, 20), False), (10, 10), False))


ALL_GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


@pytest.mark.parametrize(("u1", "u2"), [(0, 0), (1, 0.5), (0.5, 1), (0.7, 0.2)])
def test_contrast_is_a_factor_then_a_shift(u1: float, u2: float) -> None:
    options = {"brightness_limit": 0.25, "contrast_limit": [-0.5, 1.0], "p": 0.5}
    out = augment({**same_size(16, 16), "contrast": options}, {"a": ALL_GREYS}, 0.4, u1, u2).images["a"]
    factor, shift = 1 + (-0.5 + 1.5 * u1), -0.25 + 0.5 * u2
    expected = [min(max(int(np.floor(grey * factor + shift * 255)), 0), 255) for grey in range(256)]
    np.testing.assert_array_equal(out.ravel(), expected)


@pytest.mark.parametrize("u", [0, 0.4, 0.99])
def test_gamma_is_a_power(u: float) -> None:
    options = {"gamma_limit_lb": 50, "gamma_limit_ub": 200, "p": 0.5}
    out = augment({**same_size(16, 16), "gamma": options}, {"a": ALL_GREYS}, 0.4, u).images["a"]
    exponent = (50 + int(151 * u)) / 100
    expected = 255 * (np.arange(256) / 255) ** exponent
    assert np.abs(out.ravel() - expected).max() <= 0.5


@pytest.mark.parametrize(("u", "size"), [(0, 3), (0.5, 5), (0.99, 7)])
def test_blur_is_the_mean_over_a_box(u: float, size: int) -> None:
    picture = noise(12, 12, 1)
    out = augment({**same_size(12, 12), "blur": {"blur_limit": 7, "p": 0.5}}, {"a": picture}, 0.4, u).images["a"]
    padded = np.pad(picture[..., 0].astype(float), size // 2, mode="reflect")
    expected = np.lib.stride_tricks.sliding_window_view(padded, (size, size)).mean(axis=(2, 3))
    assert np.abs(out[..., 0] - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_motion_blur_spreads_a_point_evenly_along_a_line(seed: int) -> None:
    point, flat = np.zeros((2, 21, 21, 1), np.uint8)
    point[10, 10], flat[:] = 255, 77
    keys = {**same_size(21, 21), "motion_blur": {"blur_limit": 9, "p": 1.0}}
    out = Augmenter(keys, [])({"point": point, "flat": flat}, random.Random(seed)).images
    np.testing.assert_array_equal(out["flat"], flat)
    rows, columns, _ = np.nonzero(out["point"])
    length = len(rows)
    assert 2 <= length <= 9
    np.testing.assert_array_equal(out["point"][rows, columns], round(255 / length))
    assert length == max(np.ptp(rows), np.ptp(columns)) + 1  # one pixel for each step along the longer axis


def test_compression_is_a_round_trip_through_jpeg_of_the_drawn_quality() -> None:
    picture, grey = smooth(32, 32), smooth(32, 32, 1)
    keys = {**same_size(32, 32), "compression": {"quality_lower": 11, "p": 0.5}}

    def error(u: float) -> float:
        out = augment(keys, {"a": picture, "grey": grey}, 0.4, u).images
        assert out["grey"].shape == grey.shape
        quality = 11 + int(90 * u)
        by_opencv = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], -1)
        np.testing.assert_array_equal(out["a"], by_opencv)
        return float(np.abs(out["grey"].astype(float) - grey).mean())

    assert error(0.999) < 0.5 < error(0.5) + 0.4 < error(0)


@pytest.mark.parametrize("op", ["contrast", "gamma", "blur", "motion_blur", "compression"])
def test_changes_of_colour_leave_masks_and_16_bit_pictures_alone(op: str) -> None:
    options = {
        "contrast": {"brightness_limit": 0, "contrast_limit": [1, 1]},
        "gamma": {"gamma_limit_lb": 50, "gamma_limit_ub": 50},
        "compression": {"quality_lower": 1},
    }.get(op, {"blur_limit": 5})
    images = {
        "map": noise(8, 8, 1),
        "depth": noise(8, 8, 1, below=65536),
        "images": noise(8, 8),
        "edges": noise(8, 8, 1),
    }
    out = augment({**same_size(8, 8), op: {**options, "p": 1.0}}, images, 0.4, 0.0).images
    unchanged = {name for name in images if np.array_equal(out[name], images[name])}
    assert unchanged == {"map", "depth"}


def test_compression_of_a_picture_with_alpha_is_refused() -> None:
    with pytest.raises(UserError, match=r"^compression: .*alpha"):
        augment({**same_size(8, 8), "compression": {"quality_lower": 90, "p": 1.0}}, {"a": noise(8, 8, 4)})


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
    augmenter = Augmenter(keys, ["map"], "INTER_AREA")
    copy = pickle.loads(pickle.dumps(augmenter))
    images = {"images": noise(20, 30), "map": noise(20, 30, 1)}
    for seed in range(4):
        out = [one(images, random.Random(seed)).images for one in (augmenter, copy)]
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
    ],
)
def test_the_size_of_what_comes_out_is_known_where_it_does_not_depend_on_the_picture(
    keys: dict, crop: tuple[int, int] | None, output: tuple[int, int] | None
) -> None:
    assert (crop_size(keys), output_size(keys)) == (crop, output)
    if output:
        assert augment(keys, {"a": noise(30, 40)}).images["a"].shape == (*output, 3)


@pytest.mark.parametrize("text", ["256", "a, b", "1, 2, 3", "1.5, 2", "-1, 2", ""])
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
        Augmenter(keys, [])


@pytest.mark.parametrize("name", ["LINEAR", "INTER_MAGIC", "imread"])
def test_an_unknown_interpolator_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"^interpolator '{name}': OpenCV has no such constant"):
        Augmenter({"resize_h_w": "8, 8"}, [], name)
