"""Consistency: pixels of the same point some frames apart, compared by hand, in whatever parts a clip comes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.consistency import Metric

CPU = torch.device("cpu")


def measure(images: Tensor, points: Tensor, gap: int, *parts: slice) -> float:
    metric = Metric(gap=gap).fresh(CPU)
    for part in parts or (slice(None),):
        metric.update(images[None, part], {"unprojections": points[None, part]})
    return metric.compute()


def by_hand(images: Tensor, points: Tensor, gap: int) -> float:
    """In loops over pixels."""
    frames = []
    for t in range(gap, len(images)):
        seen: dict[int, list[Tensor]] = {}
        for y, x in torch.cartesian_prod(*map(torch.arange, points.shape[-2:])).tolist():
            if (point := points[t - gap, 0, y, x].item()) > 0:
                seen.setdefault(int(point), []).append(images[t - gap, :, y, x])
        errors = [
            (images[t, :, y, x] - torch.stack(seen[int(points[t, 0, y, x])]).mean(dim=0)).abs().mean().item()
            for y, x in torch.cartesian_prod(*map(torch.arange, points.shape[-2:])).tolist()
            if int(points[t, 0, y, x]) in seen
        ]
        frames += [sum(errors) / len(errors)] if errors else []
    return sum(frames) / len(frames)


def clip(frames: int = 7) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(frames, 3, 4, 5, generator=rng), torch.randint(0, 12, (frames, 1, 4, 5), generator=rng)


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_it_is_the_mean_difference_of_pixels_of_the_same_point(gap: int) -> None:
    images, points = clip()
    expected = by_hand(images, points, gap)
    assert measure(images, points, gap) == pytest.approx(expected, rel=1e-5)
    parts = [slice(0, 3), slice(2, 4), slice(3, 7)]  # each begins with the last frame of the one before
    assert measure(images, points, gap, *parts) == pytest.approx(expected, rel=1e-5)


def test_a_world_that_keeps_its_colors_has_none_and_one_that_forgets_them_does() -> None:
    _, points = clip()
    colors = torch.rand(12, 3, generator=torch.Generator().manual_seed(1))
    images = colors[points[:, 0]].movedim(-1, 1)
    assert measure(images, points, 3) == pytest.approx(0, abs=1e-7)
    assert measure(images.flip(1), points, 3) == pytest.approx(0, abs=1e-7)
    assert measure(torch.cat([images[:3], 1 - images[3:]]), points, 3) > 0.1


def test_clips_are_not_compared_with_one_another_and_short_ones_have_no_number() -> None:
    images, points = clip()
    metric = Metric(gap=3).fresh(CPU)
    for part in (slice(0, 3), slice(3, 6)):  # no frame in common: two clips
        metric.update(images[None, part], {"unprojections": points[None, part]})
    metric.update(images[None, 5:], {"unprojections": 1 + points[None, 5:]})  # an image in common, of another place
    assert math.isnan(metric.compute())


def test_points_that_are_not_known_are_no_place() -> None:
    images, points = clip()
    assert math.isnan(measure(images, torch.zeros_like(points), 2))


def test_an_image_instead_of_points_is_the_users_mistake() -> None:
    images, points = clip()
    with pytest.raises(UserError) as caught:
        measure(images, points.float(), 2)
    assert caught.value.code == "not-points"
