"""Distances between images and their targets, which are known because the images are made from the targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from imagier.metrics import l1, l1_changed, psnr


def measure(metric: l1.Metric | psnr.Metric | l1_changed.Metric, images: Tensor, *known: Tensor) -> Tensor:
    return metric.measure(images, dict(zip(("targets", "start"), known)))


def test_each_image_is_scored_by_all_its_pixels_and_by_no_other_images() -> None:
    """Off by 0.1 in one half and 0.3 in the other: 0.2 on average, and 0.05 squared, which is 13.0103 dB."""
    target = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    image = target.clone()
    image[1, :, :, :3] += 0.1
    image[1, :, :, 3:] -= 0.3
    assert measure(l1.Metric(), image, target).tolist() == pytest.approx([0, 0.2])
    assert measure(psnr.Metric(), image, target).tolist() == pytest.approx([100, 13.0103], abs=1e-4)


@pytest.mark.parametrize(("difference", "decibels"), [(0.0, 100), (1e-6, 100), (0.01, 40), (0.1, 20), (1.0, 0)])
def test_psnr_of_a_constant_difference_is_known_and_at_most_100(difference: float, decibels: float) -> None:
    image = torch.zeros(2, 3, 4, 4)
    assert measure(psnr.Metric(), image, image + difference).tolist() == pytest.approx([decibels] * 2, abs=1e-4)
    assert measure(l1.Metric(), image, image + difference).tolist() == pytest.approx([difference] * 2)


def test_only_pixels_that_had_to_change_count() -> None:
    rng = np.random.default_rng(0)
    made, target, start = (rng.random((2, 3, 4, 4)) for _ in range(3))
    start[0, :, 1:] = target[0, :, 1:] + 0.01  # too near to be a change: all but the first row
    start[1] = target[1]
    found = measure(l1_changed.Metric(), *map(torch.from_numpy, (made, target, start)))
    assert found[0].item() == pytest.approx(np.abs(made[0, :, 0] - target[0, :, 0]).mean())
    assert found[1].isnan()
    assert measure(l1_changed.Metric(), *map(torch.from_numpy, (target, target, start)))[0].item() == 0
    strict = measure(l1_changed.Metric(tolerance=0.001), *map(torch.from_numpy, (made, target, start)))
    assert strict[0].item() == pytest.approx(np.abs(made[0] - target[0]).mean()), "now all of it counts"
