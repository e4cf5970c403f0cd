"""How sure a number is that compares sets of images: confidence intervals without a model of how it is distributed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

MOST_IMAGES_FOR_INTERVALS = 20_000
"""Of both sets: with more, measuring them again and again takes too long."""

GROUPS = 10
_T_QUANTILE = 2.262
"""Student's, of 9 degrees of freedom, for 95 %."""

Interval = tuple[float, float]


def measure_intervals(
    compare: Callable[[Tensor], Mapping[str, float]],
    values: Mapping[str, float],
    num_images: int,
    seed: int,
    update: Callable[[int], None] = lambda group: None,
) -> dict[str, Interval]:
    """Where numbers lie with 95 % confidence, over generated sets of this size; none for sets that are too small.

    A number that is the same without each of the groups has none: nothing is known of how it scatters.

    By a jackknife over groups of the generated images, each of which is left out once (Shao & Tu 1995, section 2.3).

    compare: returns the numbers by name for some of the images, named by their indices. values: those of all images.
    update: called with the number of groups that are done.
    """
    if num_images < 2 * GROUPS:
        return {}
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    without: list[Mapping[str, float]] = []
    for group in range(GROUPS):
        kept = torch.cat([part for i, part in enumerate(order.tensor_split(GROUPS)) if i != group])
        without.append(compare(kept.sort().values))
        update(group + 1)
    intervals = {}
    for name, value in values.items():
        left = torch.tensor([each.get(name, math.nan) for each in without], dtype=torch.float64)
        error = ((GROUPS - 1) / GROUPS * (left - left.mean()).square().sum()).sqrt().item()
        if math.isfinite(error) and error > 0:
            intervals[name] = (value - _T_QUANTILE * error, value + _T_QUANTILE * error)
    return intervals
