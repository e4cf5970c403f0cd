"""CMMD: maximum mean discrepancy with a Gaussian kernel (Jayasumana et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from imagier.metrics.blocks import iterate_squared_distances
from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet

_BANDWIDTH = 10.0
_SCALE = 1000.0


class Metric(FeatureMetric):
    """Maximum mean discrepancy with a Gaussian kernel, times 1000; made for CLIP's features."""

    title = "CMMD"
    values: ClassVar[Mapping[str, bool]] = {"cmmd": False}

    def __init__(self, *, features: Features = "clip") -> None:
        """features: The network that makes features, or "module:name" of your own. Published values are
        those of clip.
        """
        super().__init__(features)

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        return {"cmmd": gaussian_discrepancy(real.features, fake.features)}


def gaussian_discrepancy(real: Tensor, fake: Tensor) -> float:
    """1000 times the squared MMD with the kernel exp(-|x - y|^2 / (2 * 10^2)) (Jayasumana et al. 2024, section 4).

    The estimator is the one with the pairs of a row with itself, as in published numbers: of one set with itself it is
    0, and of finite sets a little too large. The published ones are of CLIP embeddings of length 1.

    real: N x D. fake: M x D.
    """
    within = _mean_kernel(real) + _mean_kernel(fake)
    return _SCALE * (within - 2 * _mean_kernel(real, fake)).item()


def _mean_kernel(x: Tensor, y: Tensor | None = None) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for tile in iterate_squared_distances(x, y):
        weight = tile.weight if y is None else 1
        total += weight * (tile.values / (-2 * _BANDWIDTH**2)).exp().sum()
    return total / (len(x) * len(x if y is None else y))
