"""Each augmentation's pixels, against numpy, OpenCV and torch."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch
from augmenting import Scripted, augment, carried_out, nearest, resized, same_size
from images import noise, smooth

from imagier.data.augmentation.augment import Augmenter
from imagier.errors import UserError


@pytest.mark.parametrize(("u1", "u2"), [(0, 0), (0.5, 0.25), (0.999, 0.999), (0.2, 0.8)])
def test_place_of_a_random_crop(u1: float, u2: float) -> None:
    image = noise(20, 30)
    out = augment({**same_size(20, 30), "random_crop_h_w": "8, 9"}, {"a": image}, 0.9, u1, u2)
    y, x = int((20 - 8) * u1), int((30 - 9) * u2)
    np.testing.assert_array_equal(out.images["a"], image[y : y + 8, x : x + 9])


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (7, 12), (20, 30)])
def test_a_center_crop_leaves_the_odd_row_and_column_behind(size: tuple[int, int]) -> None:
    image = noise(20, 30)
    out = augment({**same_size(20, 30), "center_crop_h_w": f"{size[0]}, {size[1]}"}, {"a": image}).images["a"]
    above, before = (20 - size[0]) // 2, (30 - size[1]) // 2
    below, after = 20 - size[0] - above, 30 - size[1] - before
    assert 0 <= below - above <= 1
    assert 0 <= after - before <= 1
    np.testing.assert_array_equal(out, image[above : 20 - below, before : 30 - after])


@pytest.mark.parametrize("key", ["random_crop_h_w", "center_crop_h_w"])
@pytest.mark.parametrize("size", ["21, 8", "8, 31"])
def test_a_crop_larger_than_the_image_is_refused(key: str, size: str) -> None:
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
    image, quarter_turn = noise(*shape), shape[0] == shape[1]
    angle = 90 if quarter_turn else 180
    out = augment({**same_size(*shape), "rotate": 2 * angle}, {name: image}, 0.5, 0.75).images[name]
    y, x = np.mgrid[: shape[0], : shape[1]]
    if quarter_turn:  # about (n/2, n/2): what lands at (x, y) comes from (n - y, x)
        source_x, source_y = shape[1] - y, x
    else:
        source_x, source_y = shape[1] - x, shape[0] - y
    np.testing.assert_array_equal(out, image[reflect_101(source_y, shape[0]), reflect_101(source_x, shape[1])])


@pytest.mark.parametrize("turns", range(4))
def test_a_quarter_turn_is_counter_clockwise(turns: int) -> None:
    image = noise(5, 8)
    out = augment({**same_size(5, 8), "random_rotate_90": True}, {"a": image}, 0.49, turns / 4).images["a"]
    expected = torch.rot90(torch.from_numpy(image), turns, (0, 1)).numpy()
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("u", [0, 0.3, 0.5, 0.99])
def test_a_random_scale_truncates_the_new_size(u: float) -> None:
    images = {"images": noise(11, 17), "map": noise(11, 17, 1)}
    out = augment({**same_size(11, 17), "random_scale_limit": 0.5}, images, 0.9, u).images
    size = int(11 * (1 + 0.5 * u)), int(17 * (1 + 0.5 * u))
    np.testing.assert_array_equal(out["images"], resized(images["images"], size, False))
    np.testing.assert_array_equal(out["map"], nearest(images["map"], *size))


@pytest.mark.parametrize("seed", range(20))
def test_random_aspect_is_the_largest_box_of_that_aspect_somewhere_in_the_whole_image(seed: int) -> None:
    height, width = 60, 90
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x], axis=2).astype(np.uint8)  # holds its own coordinates
    keys = {"random_resize_h_w_aspect": "211, 307, (0.5, 2)"}
    out = carried_out(Augmenter(keys), {"a": image}, random.Random(seed), ["a"]).images["a"]
    assert out.shape == (211, 307, 2)
    (top, left), (bottom, right) = out[0, 0].astype(int), out[-1, -1].astype(int) + 1
    np.testing.assert_array_equal(out, nearest(image[top:bottom, left:right], 211, 307))
    draws = random.Random(seed)
    draws.random(), draws.random(), draws.random()
    aspect = np.exp(np.log(0.5) + (np.log(2) - np.log(0.5)) * draws.random())  # uniform in the logarithm
    box_h, box_w = bottom - top, right - left
    assert abs(box_w - box_h * aspect) <= max(1, aspect) / 2 + 1e-9  # within rounding
    assert box_h >= height - 1 or box_w == width
    assert (top, left) == (int((height - box_h) * draws.random()), int((width - box_w) * draws.random()))


def test_random_aspect_after_a_resize_takes_its_box_from_the_resized_image() -> None:
    y, x = np.mgrid[:40, :60]
    image = np.stack([4 * y, 4 * x], axis=2).astype(np.uint8)
    keys = {"resize_h_w": "20, 40", "random_resize_h_w_aspect": "10, 10, (1, 1)"}
    out = augment(keys, {"a": image}, 0.9, 0.9, 0.9, 0.5).images["a"]
    expected = resized(resized(image, (20, 40), False)[:, 10:30], (10, 10), False)
    assert np.abs(out.astype(int) - expected).max() <= 1


ALL_GRAYS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


@pytest.mark.parametrize(("u1", "u2"), [(0, 0), (1, 0.5), (0.5, 1), (0.7, 0.2)])
def test_contrast_is_a_factor_then_a_shift(u1: float, u2: float) -> None:
    options = {"brightness_limit": 0.25, "contrast_limit": [-0.5, 1.0], "p": 0.5}
    out = augment({**same_size(16, 16), "contrast": options}, {"a": ALL_GRAYS}, 0.4, u1, u2).images["a"]
    factor, shift = 1 + (-0.5 + 1.5 * u1), -0.25 + 0.5 * u2
    expected = [min(max(int(np.floor(gray * factor + shift * 255)), 0), 255) for gray in range(256)]
    np.testing.assert_array_equal(out.ravel(), expected)


@pytest.mark.parametrize("u", [0, 0.4, 0.99])
def test_gamma_is_a_power(u: float) -> None:
    options = {"gamma_limit_lb": 50, "gamma_limit_ub": 200, "p": 0.5}
    out = augment({**same_size(16, 16), "gamma": options}, {"a": ALL_GRAYS}, 0.4, u).images["a"]
    exponent = (50 + int(151 * u)) / 100
    expected = 255 * (np.arange(256) / 255) ** exponent
    assert np.abs(out.ravel() - expected).max() <= 0.5


@pytest.mark.parametrize(("u", "size"), [(0, 3), (0.5, 5), (0.99, 7)])
def test_blur_is_the_mean_over_a_box(u: float, size: int) -> None:
    image = noise(12, 12, 1)
    out = augment({**same_size(12, 12), "blur": {"blur_limit": 7, "p": 0.5}}, {"a": image}, 0.4, u).images["a"]
    padded = np.pad(image[..., 0].astype(float), size // 2, mode="reflect")
    expected = np.lib.stride_tricks.sliding_window_view(padded, (size, size)).mean(axis=(2, 3))
    assert np.abs(out[..., 0] - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_motion_blur_spreads_a_point_evenly_along_a_line(seed: int) -> None:
    point, flat = np.zeros((2, 21, 21, 1), np.uint8)
    point[10, 10], flat[:] = 255, 77
    keys = {**same_size(21, 21), "motion_blur": {"blur_limit": 9, "p": 1.0}}
    out = carried_out(Augmenter(keys), {"point": point, "flat": flat}, random.Random(seed)).images
    np.testing.assert_array_equal(out["flat"], flat)
    rows, columns, _ = np.nonzero(out["point"])
    length = len(rows)
    assert 2 <= length <= 9
    np.testing.assert_array_equal(out["point"][rows, columns], round(255 / length))
    assert length == max(np.ptp(rows), np.ptp(columns)) + 1  # one pixel for each step along the longer axis


def test_compression_is_a_round_trip_through_jpeg_of_the_drawn_quality() -> None:
    image, gray = smooth(32, 32), smooth(32, 32, 1)
    keys = {**same_size(32, 32), "compression": {"quality_lower": 11, "p": 0.5}}

    def error(u: float) -> float:
        out = augment(keys, {"a": image, "gray": gray}, 0.4, u).images
        assert out["gray"].shape == gray.shape
        quality = 11 + int(90 * u)
        by_opencv = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], -1)
        np.testing.assert_array_equal(out["a"], by_opencv)
        return float(np.abs(out["gray"].astype(float) - gray).mean())

    assert error(0.999) < 0.5 < error(0.5) + 0.4 < error(0)


@pytest.mark.parametrize("op", ["contrast", "gamma", "blur", "motion_blur", "compression"])
def test_changes_of_color_leave_masks_and_16_bit_images_alone(op: str) -> None:
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


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_compression_of_an_image_with_channels_that_no_jpeg_has_is_refused(channels: int) -> None:
    with pytest.raises(UserError, match=rf"^compression: .* this image {channels}; drop the others \(alpha\)"):
        augment({**same_size(8, 8), "compression": {"quality_lower": 90, "p": 1.0}}, {"a": noise(8, 8, channels)})


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the functions that resample, as they are called."""
    calls: list[str] = []
    for name in ("resize", "warpAffine", "remap"):
        original = getattr(cv2, name)

        def counting(*args: object, name: str = name, original: object = original, **options: object) -> np.ndarray:
            calls.append(name)
            return original(*args, **options)  # type: ignore[operator]

        monkeypatch.setattr(cv2, name, counting)
    return calls


DARKER = {"contrast": {"brightness_limit": 0.0, "contrast_limit": [-0.5, -0.5], "p": 1.0}}
BLURRED = {"blur": {"blur_limit": 3, "p": 1.0}}


@pytest.mark.parametrize(
    ("keys", "warps"),
    [
        ({"resize_h_w": "20, 30", "random_scale_limit": 0.5, "rotate": 20}, 1),
        ({"resize_h_w": "20, 30", **DARKER, "random_scale_limit": 0.5, "rotate": 20}, 1),
        ({"resize_h_w": "20, 30", "random_scale_limit": 0.5, **DARKER, "rotate": 20, "random_crop_h_w": "8, 8"}, 1),
        ({"resize_h_w": "20, 30", "rotate": 20, **BLURRED, "horizontal_flip": True, "random_crop_h_w": "8, 8"}, 1),
        ({"resize_h_w": "20, 30", **BLURRED, "rotate": 20}, 2),  # it looks at neighbors: not before they are there
    ],
)
def test_an_image_is_resampled_once_unless_its_neighbors_are_looked_at_in_between(
    keys: dict, warps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {"images": noise(40, 50)}
    calls = counted(monkeypatch)
    augment(keys, images, *[0.4] * 12)
    assert len(calls) == warps


def test_values_that_change_pixel_by_pixel_between_moves_change_as_in_the_order_of_the_config() -> None:
    image, half = smooth(40, 60), np.floor(np.arange(256) * 0.5).astype(np.uint8)
    keys = {"resize_h_w": "20, 30", **DARKER, "random_scale_limit": 0.5}
    out = augment(keys, {"a": image}, 0.4, 0.5, 0.5, 0.9, 0.4).images["a"]
    by_hand = resized(half[resized(image, (20, 30), False)], (24, 36), False)
    assert np.abs(out.astype(int) - by_hand).max() <= 3
    # where the image is resampled by one operation alone: to the last bit
    out = augment(keys, {"a": by_hand[:20, :30]}, 0.4, 0.5, 0.5, 0.9, 0.4).images["a"]
    np.testing.assert_array_equal(out, resized(half[by_hand[:20, :30]], (24, 36), False))
    keys = {"resize_h_w": "20, 30", **DARKER, "horizontal_flip": True}
    out = augment(keys, {"a": image}, 0.4, 0.5, 0.5, 0.1).images["a"]
    np.testing.assert_array_equal(out, half[resized(image, (20, 30), False)][:, ::-1])


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("stored", [(96, 128), (91, 123), (95, 121)])
def test_an_image_at_reduced_scale_is_placed_as_the_whole_one(stored: tuple[int, int], reduction: int) -> None:
    """Its last row and column may show less of the image than they are wide."""
    height, width = stored
    y, x = np.mgrid[: -(-height // reduction) * reduction, : -(-width // reduction) * reduction]
    blocks = (y.shape[0] // reduction, reduction, y.shape[1] // reduction, reduction, 2)
    reduced = np.stack([2 * y, 2 * x], axis=2).reshape(blocks).mean(axis=(1, 3))
    for keys in ({"resize_h_w": "10, 13"}, {"resize_h_w": "10, 13", "random_scale_limit": 0.2}):
        drawn = Augmenter(keys).draw(stored, Scripted(0.5, 0.5, 0.5, 0.5))
        extent = (height / reduction, width / reduction)
        out = drawn.apply(reduced.astype(np.float32), extent) / 2
        rows, columns = np.mgrid[: out.shape[0], : out.shape[1]]
        expected = (
            np.stack([(rows + 0.5) * height / out.shape[0], (columns + 0.5) * width / out.shape[1]], axis=2) - 0.5
        )
        assert np.abs(out - expected)[1:-1, 1:-1].max() < reduction / 64 + 0.01  # OpenCV places by 1/32 pixel


def test_an_image_at_reduced_scale_is_resized_by_the_interpolator_too() -> None:
    """Area: the mean of what falls into a pixel. Linear would skip most of a checkerboard."""
    y, x = np.mgrid[:40, :52]
    board = ((y + x) % 2 * 200).astype(np.float32)[..., None]
    for stored in ((80, 104), (79, 103)):
        drawn = Augmenter({"resize_h_w": "10, 13"}, "INTER_AREA").draw(stored, Scripted(0.5, 0.5))
        out = drawn.apply(board, (stored[0] / 2, stored[1] / 2))
        assert np.abs(out - 100).max() < 20
    ramp = np.stack([2 * y + 0.5, 2 * x + 0.5], axis=2).astype(np.float32)  # its pixels' places in the stored image
    out = drawn.apply(ramp, (stored[0] / 2, stored[1] / 2))
    expected = np.stack(np.mgrid[:10, :13], axis=2) + 0.5
    expected = expected * np.array(stored) / (10, 13) - 0.5
    assert np.abs(out - expected)[1:-1, 1:-1].max() < 0.05


@pytest.mark.parametrize(
    ("keys", "needed"),
    [
        ({"resize_smallest_side": 256}, (256, 341)),
        ({"resize_smallest_side": 256, "random_scale_limit": 0.2}, (308, 410)),
        ({"resize_h_w": "100, 50", "random_crop_h_w": "8, 8"}, (100, 50)),
        ({"random_crop_h_w": "64, 64"}, (64, 64)),
        ({"resize_h_w": "100, 50", "random_resize_h_w_aspect": "64, 64, (0.5, 2)"}, (480, 640)),
    ],
)
def test_needed_of_an_image_is_its_size_after_the_resize_and_the_largest_scale(
    keys: dict, needed: tuple[int, int]
) -> None:
    assert Augmenter(keys).compute_needed_size((480, 640)) == needed
