"""Maps of ids: whether they were mixed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from doctoring import areas, grown, through_jpeg
from images import noise

from imagier.data.codecs.mask import holds_mixtures


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
def test_clean_maps_hold_no_mixtures_also_if_resized_by_nearest_neighbor(classes: int, factor: float) -> None:
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
