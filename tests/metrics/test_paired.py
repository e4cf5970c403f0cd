"""Distances between images and their targets, which are known because the images are made from the targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.image
from scipy.ndimage import correlate1d
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics import l1, l1_changed, ms_ssim, psnr, ssim
from imagier.metrics.metric import MeanOverImages


def measure(metric: MeanOverImages, images: Tensor, *known: Tensor) -> Tensor:
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


@pytest.mark.parametrize("metric", [l1.Metric(), psnr.Metric(), l1_changed.Metric()], ids=lambda metric: metric.name)
def test_an_image_that_holds_nan_is_not_left_out_of_the_mean(metric: MeanOverImages) -> None:
    target, start = torch.zeros(3, 3, 4, 4), torch.zeros(3, 3, 4, 4)
    start[:2] = 1
    for image, is_number in ((target + 0.1, True), (torch.where(torch.eye(4) > 0, torch.nan, target), False)):
        tested = metric.fresh(torch.device("cpu"))
        tested.update(image, {"targets": target, "start": start})
        assert np.isfinite(tested.compute()) == is_number
        assert bool(tested.compute_intervals()) == is_number


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


def photos(seed: int, side: int) -> Tensor:
    """Six images, smooth and rough ones."""
    rng = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.rand(6, 3, 4, 5, generator=rng), (side, side + 7), mode="bilinear")
    return (smooth + 0.1 * torch.randn(smooth.shape, generator=rng)).clamp(0, 1)


@pytest.mark.parametrize(
    ("metric", "oracle", "side"),
    [
        (ssim.Metric(), torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=1.0), 40),
        (ms_ssim.Metric(), torchmetrics.image.MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0), 176),
        (psnr.Metric(), torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0, reduction="none", dim=(1, 2, 3)), 9),
    ],
)
def test_the_mean_over_batches_is_that_of_torchmetrics_over_the_whole_set(
    metric: MeanOverImages, oracle: torchmetrics.Metric, side: int
) -> None:
    targets = photos(0, side)
    images = 0.7 * targets + 0.3 * photos(1, side)
    oracle.update(images, targets)
    tested = metric.fresh(torch.device("cpu"))
    for rows in (slice(0, 1), slice(1, 6)):
        tested.update(images[rows], {"targets": targets[rows]})
    assert tested.compute() == pytest.approx(oracle.compute().mean().item(), rel=1e-6)


def blur(channel: np.ndarray) -> np.ndarray:
    """By a Gaussian of 11 pixels, sigma 1.5, with a mirror at the border that does not repeat the last pixel."""
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    for axis in (0, 1):
        channel = correlate1d(channel, weights / weights.sum(), axis=axis, mode="mirror")
    return channel


def test_ssim_is_the_formula_of_its_paper() -> None:
    """Wang et al. 2004, eq. 13, C1 = 0.01^2 and C2 = 0.03^2, averaged over pixels and channels."""
    x, y = (photos(seed, 24)[0].double().numpy() for seed in (0, 1))
    maps = []
    for a, b in zip(x, y):
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
        luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        maps.append(luminance * (2 * cov + 9e-4) / (var_a + var_b + 9e-4))
    found = measure(ssim.Metric(), *(torch.from_numpy(each)[None] for each in (x, y)))
    assert found.item() == pytest.approx(np.mean(maps), abs=1e-9)


@pytest.mark.parametrize(("metric", "side"), [(ssim.Metric(), 10), (ms_ssim.Metric(), 175)])
def test_images_that_are_too_small_are_refused(metric: MeanOverImages, side: int) -> None:
    image = torch.zeros(1, 3, 400, side)
    with pytest.raises(UserError) as refused:
        measure(metric, image, image)
    assert refused.value.code == "too-small-images"
    larger = torch.zeros(1, 3, 400, side + 1)
    assert measure(metric, larger, larger).tolist() == pytest.approx([1])
