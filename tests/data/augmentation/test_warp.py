"""Many changes of geometry as one warp, against the same changes one after the other, and against known places."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import pytest
from augmenting import Scripted, augment, by_hand, carried_out
from images import noise, smooth

from imagier.data.augmentation.augment import Augmenter, Drawn
from imagier.data.augmentation.warp import Moves, crop, mirror, resize, turn, turn_quarters

# Every one of them resamples at least twice.
CHAINS: dict[str, dict[str, Any]] = {
    "scale": {"resize_smallest_side": 96, "random_scale_limit": 0.2, "horizontal_flip": True}
    | {"random_crop_h_w": "90, 90"},
    "rotate": {"resize_smallest_side": 80, "rotate": 30, "random_crop_h_w": "64, 72", "horizontal_flip": True},
    "rotate, scale": {"resize_smallest_side": 90, "rotate": 20, "random_scale_limit": 0.5, "random_rotate_90": True}
    | {"random_crop_h_w": "80, 80"},
    "crop, rotate": {"resize_smallest_side": 140, "random_crop_h_w": "96, 96", "rotate": 45},
    "enlarge": {"resize_smallest_side": 300, "random_scale_limit": 0.3, "rotate": 5, "random_crop_h_w": "256, 256"},
}
STORED = (120, 160)


def regions(height: int, width: int) -> np.ndarray:
    """A map of twelve rectangles, H x W x 1."""
    rows, columns = np.mgrid[:height, :width]
    return (columns * 4 // width + rows * 3 // height * 4).astype(np.uint8)[..., None]


def far_from_borders(regions: np.ndarray, distance_px: int) -> np.ndarray:
    """H x W x 1: where there is one region only, so far around; the image's own border is one too."""
    framed = np.pad(regions[..., 0], 1, constant_values=255)
    kernel = np.ones((2 * distance_px + 1,) * 2, np.uint8)
    return (cv2.dilate(framed, kernel) == cv2.erode(framed, kernel))[1:-1, 1:-1, None]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("chain", CHAINS)
def test_one_warp_is_the_steps_one_by_one_to_interpolation(chain: str, seed: int) -> None:
    images = {
        "images": smooth(*STORED),
        "deep": smooth(*STORED, 1).astype(np.uint16) * 200,
        "half": smooth(60, 80, seed=1),  # stored smaller than the others
        "map": regions(*STORED),
        "small map": regions(60, 80),
    }
    masks = ("map", "small map")
    out = carried_out(Augmenter(CHAINS[chain]), images, random.Random(seed), masks)
    expected, flipped = by_hand(CHAINS[chain], images, masks, random.Random(seed))
    assert out.is_flipped == flipped
    for name in images:
        found, wanted = out.images[name], expected[name]
        assert found.shape == wanted.shape
        assert found.dtype == wanted.dtype
        if name in masks:
            inside = far_from_borders(wanted, 3) & far_from_borders(found, 1)
            assert inside.mean() > 0.4
            np.testing.assert_array_equal(found[inside], wanted[inside])
        else:
            errors = np.abs(found.astype(float) - wanted) / (200 if name == "deep" else 1)
            assert errors.max() <= 2
            assert errors.mean() < 0.3


def test_whole_numbers_come_out_exactly() -> None:
    """Enlarged twice by 2, then turned and cropped: every pixel is one of the stored, or on a line between two."""
    stored = noise(12, 10, 1)
    keys = {"resize_h_w": "24, 20", "random_scale_limit": 1.0, "random_rotate_90": True, "random_crop_h_w": "16, 24"}
    out = augment(keys, {"map": stored}, 0.5, 1.0, 0.1, 0.25, 0.9, 0.5, 0.5).images["map"]
    enlarged = np.rot90(stored.repeat(4, axis=0).repeat(4, axis=1))
    np.testing.assert_array_equal(out, enlarged[12:28, 12:36])


def disk(height: int, width: int, y: float, x: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """An image of a disk with a soft border, and the map of it, H x W x 1 each."""
    rows, columns = np.mgrid[:height, :width]
    inside = radius - np.hypot(rows - y, columns - x)
    return (np.clip(inside / 4 + 0.5, 0, 1) * 255).astype(np.uint8)[..., None], (inside > 0).astype(np.uint8)[..., None]


def center(image: np.ndarray) -> np.ndarray:
    """(x, y) of the center of what is light."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    weights = image[..., 0].astype(float)
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("chain", CHAINS)
def test_images_maps_and_key_points_stay_together(chain: str, seed: int) -> None:
    """To a tenth of a pixel, whatever sizes they are stored in."""
    keys = {name: value for name, value in CHAINS[chain].items() if name != "random_crop_h_w"}
    light, _ = disk(240, 320, 121, 156, 60)
    _, area = disk(480, 640, 242.5, 312.5, 120)  # the same place: (121 + 0.5) * 2 - 0.5
    drawn = Augmenter(keys).draw((480, 640), random.Random(seed))
    point = drawn.move_points(np.array([[156, 121, 0.25]]), (240, 320))[0]
    assert point[2] == 0.25
    np.testing.assert_allclose(center(drawn.apply(light)), point[:2], atol=0.1)
    np.testing.assert_allclose(center(drawn.apply(area, is_nearest=True)), point[:2], atol=0.1)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2)])
def test_a_turned_sliver_is_mirrored_as_often_as_it_takes(size: tuple[int, int]) -> None:
    image = noise(*size, 1)
    keys = {"resize_h_w": "3, 40", "rotate": 180, "random_scale_limit": 1.0}
    out = augment(keys, {"a": image}, 0.5, 0.75, 0.5, 0.5).images["a"]  # a quarter turn
    assert out.shape == (4, 60, 1)
    assert image.min() <= out.min()
    assert out.max() <= image.max()


def test_the_warp_of_a_whole_image_onto_itself_changes_nothing() -> None:
    image = noise(24, 36)
    steps = [*resize((24, 36), (12, 18)), *resize((12, 18), (24, 36))]
    np.testing.assert_array_equal(Moves(steps)(image, cv2.INTER_LINEAR, cv2.INTER_LINEAR), image)


@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_NEAREST])
def test_images_longer_than_opencv_can_warp_are_resized_first(interpolation: int) -> None:
    image = np.arange(40_000, dtype=np.uint16).repeat(3).reshape(40_000, 3, 1)
    steps = [*resize((40_000, 3), (100, 30)), *resize((100, 30), (200, 60))]
    out = Moves(steps)(image, interpolation, interpolation)
    first = cv2.resize(image, (30, 100), interpolation=interpolation)
    np.testing.assert_array_equal(out[..., 0], cv2.resize(first, (60, 200), interpolation=interpolation))


def test_only_the_pixels_of_the_crop_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    warp = cv2.warpAffine

    def warp_affine(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], **options: Any) -> np.ndarray:
        sizes.append(size)
        return warp(image, matrix, size, **options)

    monkeypatch.setattr(cv2, "warpAffine", warp_affine)
    monkeypatch.setattr(cv2, "resize", None)
    keys = {"resize_smallest_side": 256, "rotate": 4, "random_scale_limit": 0.2, "random_crop_h_w": "32, 48"}
    augment(keys, {"images": noise(480, 640)}, 0.5, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert sizes == [(48, 32)]


# Key points


def drawn(keys: dict[str, Any], size: tuple[int, int], *numbers: float) -> Drawn:
    return Augmenter(keys).draw(size, Scripted(0.5, 0.5, *numbers))


POINTS = np.array([[3.0, 5.0], [0.0, 0.0], [31.0, 23.0], [-7.5, 90.25]])


def moved(keys: dict[str, Any], *numbers: float) -> np.ndarray:
    """POINTS of an image 24 x 32."""
    return drawn(keys, (24, 32), *numbers).move_points(POINTS, (24, 32))


@pytest.mark.parametrize("turns", range(4))
def test_key_points_of_a_quarter_turn_are_those_of_the_formulas(turns: int) -> None:
    x, y = POINTS.T
    expected = {0: (x, y), 1: (y, 31 - x), 2: (31 - x, 23 - y), 3: (23 - y, x)}[turns]
    found = moved({"resize_h_w": "24, 32", "random_rotate_90": True}, 0.1, turns / 4)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-5)


def test_key_points_of_flip_and_crop_are_those_of_the_formulas() -> None:
    keys = {"resize_h_w": "24, 32", "horizontal_flip": True, "random_crop_h_w": "8, 12"}
    found = moved(keys, 0.1, 0.9, 0.5, 0.25)
    np.testing.assert_allclose(found, np.stack([31 - POINTS[:, 0] - 5, POINTS[:, 1] - 8], axis=1), atol=1e-5)


def test_key_points_of_a_resize_stay_in_the_middle_of_what_they_mark() -> None:
    found = moved({"resize_h_w": "96, 64"})
    np.testing.assert_allclose(found, (POINTS + 0.5) * [2, 4] - 0.5, atol=1e-5)


def test_key_points_turn_about_the_center_of_the_image_as_it_does() -> None:
    angle = np.deg2rad(20)
    found = moved({"resize_h_w": "24, 32", "rotate": 40}, 0.5, 0.75)
    x, y = (POINTS - [16, 12]).T  # counter-clockwise, y downwards
    turned = np.stack([np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x], axis=1)
    np.testing.assert_allclose(found, turned + np.array([16, 12]), atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_key_points_go_through_the_product_of_all_matrices(seed: int) -> None:
    keys = {"resize_h_w": "48, 48", "rotate": 30, "random_scale_limit": 0.4, "random_crop_h_w": "40, 30"}
    rng = random.Random(seed)
    rng.random(), rng.random(), rng.random()
    turned = np.vstack([cv2.getRotationMatrix2D((24, 24), rng.uniform(-30, 30), 1), [0, 0, 1]])
    rng.random()
    side = int(48 * rng.uniform(1, 1.4))
    rng.random()
    top, left = int((side - 40) * rng.random()), int((side - 30) * rng.random())
    to_corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # the corner of the first pixel is (0, 0)
    from_corner = np.linalg.inv(to_corner)
    resized = from_corner @ np.diag([48 / 32, 2, 1]) @ to_corner
    scaled = from_corner @ np.diag([side / 48, side / 48, 1]) @ to_corner
    product = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ scaled @ turned @ resized
    expected = cv2.perspectiveTransform(POINTS[None], product)[0]
    found = Augmenter(keys).draw((24, 32), random.Random(seed)).move_points(POINTS, (24, 32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_frames_of_points_and_what_else_is_known_of_them_pass() -> None:
    points = np.random.default_rng(0).uniform(0, 20, (5, 7, 4))
    found = drawn({"resize_h_w": "24, 32", "horizontal_flip": True}, (24, 32), 0.1).move_points(points, (24, 32))
    assert found.shape == (5, 7, 4)
    np.testing.assert_allclose(found[..., 0], 31 - points[..., 0], atol=1e-5)
    np.testing.assert_allclose(found[..., 1:], points[..., 1:], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("chain", [chain for chain in CHAINS if chain != "crop, rotate"])  # it loses pixels before
def test_a_marked_pixel_lands_where_the_key_point_says(chain: str, seed: int) -> None:
    keys = CHAINS[chain]
    marks, points = np.zeros((*STORED, 1), np.uint8), np.array([[40.0, 30], [80, 60], [100, 100], [130, 70]])
    for number, (x, y) in enumerate(points.astype(int), start=1):
        marks[y - 1 : y + 2, x - 1 : x + 2] = number
    drawn = Augmenter(keys).draw(STORED, random.Random(seed))
    out, places = drawn.apply(marks, is_nearest=True)[..., 0], np.rint(drawn.move_points(points, STORED)).astype(int)
    inside = [i for i, (x, y) in enumerate(places) if 0 <= y < out.shape[0] and 0 <= x < out.shape[1]]
    assert inside
    for i in inside:
        assert out[places[i][1], places[i][0]] == i + 1


# Each step by itself


@pytest.mark.parametrize(
    "steps",
    [
        [*crop((20, 30), 3, 4, (9, 8))],
        [*mirror((20, 30)), *crop((20, 30), 3, 4, (9, 8))],
        [*crop((20, 30), 3, 4, (9, 8)), *mirror((9, 8)), *turn_quarters((9, 8), 1)],
        [*turn_quarters((20, 30), 3), *crop((30, 20), 3, 4, (9, 8)), *mirror((9, 8))],
        [*turn_quarters((20, 30), 2), *mirror((20, 30)), *turn_quarters((20, 30), 1)],
    ],
)
def test_whole_pixels_move_where_the_points_say(steps: list) -> None:
    y, x = np.mgrid[:20, :30]
    out = Moves(steps)(np.stack([x, y], axis=2).astype(np.uint8), cv2.INTER_LINEAR, cv2.INTER_LINEAR)
    assert out.flags.c_contiguous
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            source = np.array([column, row, 1.0])
            for step in reversed(steps):
                source[:2] = np.reshape(step.source, (2, 3)) @ source
            np.testing.assert_array_equal(out[row, column], source[:2])


def test_steps_that_change_nothing_are_none() -> None:
    assert resize((4, 5), (4, 5)) == turn((4, 5), 0) == turn_quarters((4, 5), 0) == []
