"""What is noted of a picture: its brightness in cells, and whether a map of names holds mixtures of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from doctoring import areas, grown, through_jpeg
from pictures import noise

from imagier.data.doctor.note import holds_mixtures, luma


def smoothed(names: np.ndarray, how: str) -> np.ndarray:
    """A map as one of the usual mistakes leaves it."""
    if how == "jpeg":
        return through_jpeg(names, 80)
    if how == "blur":
        return cv2.GaussianBlur(names, (0, 0), 1.5)[..., None]
    interpolation = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[how]
    return grown(names, 0.7, interpolation)


@pytest.mark.parametrize("classes", [2, 4, 12, 150])
@pytest.mark.parametrize("factor", [1, 0.25, 1.5])
def test_clean_maps_hold_no_mixtures_also_if_resized_by_nearest_neighbour(classes: int, factor: float) -> None:
    for seed in range(10):
        names = areas(96, seed=seed, classes=12, below=classes)
        assert not holds_mixtures(grown(names, factor, cv2.INTER_NEAREST)[..., 0])


@pytest.mark.parametrize("how", ["linear", "area", "blur", "jpeg"])
@pytest.mark.parametrize("classes", [20, 150])
def test_maps_hold_mixtures_after_they_were_smoothed_or_compressed(classes: int, how: str) -> None:
    found = [holds_mixtures(smoothed(areas(96, seed=i, classes=12, below=classes), how)[..., 0]) for i in range(10)]
    assert np.mean(found) >= 0.9


@pytest.mark.parametrize("how", ["linear", "area", "blur", "jpeg"])
def test_a_mask_of_two_values_holds_mixtures_after_it_was_smoothed(how: str) -> None:
    mask = (areas(96, seed=1, classes=2) % 2 * 255).astype(np.uint8)
    assert not holds_mixtures(mask[..., 0])
    assert holds_mixtures(smoothed(mask, how)[..., 0])


def test_lines_of_the_value_for_nothing_between_areas_are_no_mixtures() -> None:
    names = areas(96, seed=3, classes=12)[..., 0]
    edges = np.zeros(names.shape, bool)
    edges[:, 1:] |= names[:, 1:] != names[:, :-1]
    edges[1:] |= names[1:] != names[:-1]
    assert not holds_mixtures(np.where(edges, np.uint8(255), names))


def test_a_map_of_few_pixels_is_not_judged() -> None:
    assert not holds_mixtures(noise(2, 2, 1)[..., 0])
    assert not holds_mixtures(noise(1, 500, 1, below=3)[..., 0][:, :3])


@pytest.mark.parametrize("side", [4, 8])
def test_luma_is_the_mean_of_the_weighted_colours_in_each_cell(side: int) -> None:
    picture = noise(32, 48)
    weighted = picture.astype(np.float64) @ [0.299, 0.587, 0.114]
    cells = weighted.reshape(side, 32 // side, side, 48 // side).mean(axis=(1, 3))
    np.testing.assert_allclose(luma(picture, side), cells, atol=1)  # OpenCV rounds the mean of each colour


def test_luma_is_the_same_for_8_bits_16_bits_and_floats() -> None:
    picture = noise(16, 16)
    expected = luma(picture, 8)
    np.testing.assert_allclose(luma(picture.astype(np.uint16) * 257, 8), expected, atol=1)
    np.testing.assert_allclose(luma(picture.astype(np.float32) / 255, 8), expected, atol=1)


def test_luma_of_a_broken_float_picture_is_a_number() -> None:
    picture = np.full((8, 8, 1), np.nan, np.float32)
    assert np.isfinite(luma(picture, 4)).all()
