"""Distances between images and their targets, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imagier.metrics.paired import l1, l1_changed, psnr


def test_they_follow_their_formulas_image_by_image() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.random((4, 3, 5, 6)) for _ in range(2))
    absolute = [np.mean(np.abs(x - y)) for x, y in zip(a, b)]
    decibels = [10 * np.log10(1 / np.mean((x - y) ** 2)) for x, y in zip(a, b)]
    images = torch.from_numpy(a), torch.from_numpy(b)
    np.testing.assert_allclose(l1(*images).numpy(), absolute)
    np.testing.assert_allclose(psnr(*images).numpy(), decibels)


@pytest.mark.parametrize(("difference", "decibels"), [(0.0, 100), (1e-6, 100), (0.01, 40), (0.1, 20), (1.0, 0)])
def test_psnr_of_a_constant_difference_is_known_and_at_most_100(difference: float, decibels: float) -> None:
    image = torch.zeros(2, 3, 4, 4)
    assert psnr(image, image + difference).tolist() == pytest.approx([decibels] * 2, abs=1e-4)
    assert l1(image, image + difference).tolist() == pytest.approx([difference] * 2)


def test_only_pixels_that_had_to_change_count() -> None:
    rng = np.random.default_rng(0)
    made, target, start = (rng.random((2, 3, 4, 4)) for _ in range(3))
    start[0, :, 1:] = target[0, :, 1:] + 0.01  # too near to be a change: all but the first row
    start[1] = target[1]
    found = l1_changed(*map(torch.from_numpy, (made, target, start)))
    assert found[0].item() == pytest.approx(np.abs(made[0, :, 0] - target[0, :, 0]).mean())
    assert found[1].isnan()
    assert l1_changed(*map(torch.from_numpy, (target, target, start)))[0].item() == 0
