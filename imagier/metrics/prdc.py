"""PRDC: precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from imagier.metrics.blocks import iterate_squared_distances
from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet


class Metric(FeatureMetric):
    """Coverage of the real images by the generated ones, with precision, recall and density."""

    title = "Coverage"
    values: ClassVar[Mapping[str, bool]] = {"coverage": True, "precision": True, "recall": True, "density": True}
    titles: ClassVar[Mapping[str, str]] = {name: name.capitalize() for name in values}

    def __init__(self, *, features: Features = "efflite0", k: Annotated[int, Field(ge=1)] = 5) -> None:
        """features: The space of the features.
        k: The balls around images reach to their k-th neighbors.
        """
        super().__init__(features)
        self.k = k
        self.min_images = k + 1

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {**super().describe(), "k": self.k}

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        values = measure_prdc(real.features, fake.features, k=self.k)
        return {name: values[name] for name in self.values}


def measure_prdc(real: Tensor, fake: Tensor, *, k: int) -> dict[str, float]:
    """Precision, recall, density and coverage of fake features (Naeem et al. 2020, eq. 1 to 4).

    Around each real and each fake feature lies a ball that reaches to its k-th neighbor in its own set.
    precision: share of the fake features in some real ball. recall: share of the real features in some fake ball.
    density: number of real balls around a fake feature, over k; may exceed 1. coverage: share of the real balls that
    hold a fake feature.

    real: N x D. fake: M x D. N and M at least k + 1.
    """
    real_radii, fake_radii = _neighbor_distances(real, k), _neighbor_distances(fake, k)
    around_fake = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    recalled, covered = 0, 0
    for rows, squares in iterate_squared_distances(real, fake):
        in_real_ball = squares < real_radii[rows, None]
        around_fake += in_real_ball.sum(dim=0)
        recalled += int((squares < fake_radii).any(dim=1).sum())
        covered += int(in_real_ball.any(dim=1).sum())
    return {
        "precision": (around_fake > 0).double().mean().item(),
        "recall": recalled / len(real),
        "density": around_fake.double().mean().item() / k,
        "coverage": covered / len(real),
    }


def _neighbor_distances(features: Tensor, k: int) -> Tensor:
    """The squared distance of each row from its k-th nearest other row."""
    radii = torch.empty(len(features), dtype=torch.float64, device=features.device)
    for rows, squares in iterate_squared_distances(features, features):
        own = torch.arange(rows.start, rows.stop, device=features.device)
        squares[own - rows.start, own] = torch.inf
        radii[rows] = squares.topk(k, largest=False).values[:, -1]
    return radii
