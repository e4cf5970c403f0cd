"""PRDC: precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from imagier.metrics.blocks import Tile, iterate_squared_distances
from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet

_MORE_CANDIDATES = 4
_NUMBERS_AT_ONCE = 1 << 22


class Metric(FeatureMetric):
    """Coverage of the real images by the generated ones, with precision, recall and density."""

    title = "Coverage"
    values: ClassVar[Mapping[str, bool]] = {"coverage": True, "precision": True, "recall": True, "density": True}
    titles: ClassVar[Mapping[str, str]] = {name: name.capitalize() for name in values}

    def __init__(self, *, features: Features = "efflite0", k: Annotated[int, Field(ge=1)] = 5) -> None:
        """features: The network that makes features, or "module:name" of your own.
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
    is_recalled, is_covered = torch.zeros(2, len(real), dtype=torch.bool, device=real.device)
    for tile in iterate_squared_distances(real, fake):
        in_real_ball = _is_less(tile, real_radii[tile.rows, None], real, fake)
        around_fake[tile.columns] += in_real_ball.sum(dim=0)
        is_covered[tile.rows] |= in_real_ball.any(dim=1)
        is_recalled[tile.rows] |= _is_less(tile, fake_radii[tile.columns], real, fake).any(dim=1)
    return {
        "precision": (around_fake > 0).double().mean().item(),
        "recall": is_recalled.double().mean().item(),
        "density": around_fake.double().mean().item() / k,
        "coverage": is_covered.double().mean().item(),
    }


def _neighbor_distances(features: Tensor, k: int) -> Tensor:
    """The squared distance of each row from its k-th nearest other row.

    A few more than k candidates are found in the table, and their distances computed again from the rows themselves.
    """
    count = min(k + _MORE_CANDIDATES, len(features) - 1)
    squares = torch.full((len(features), count), torch.inf, dtype=torch.float64, device=features.device)
    indices = torch.zeros((len(features), count), dtype=torch.int64, device=features.device)
    for tile in iterate_squared_distances(features):
        if tile.weight == 1:
            tile.values.fill_diagonal_(torch.inf)
        sides = [(tile.rows, tile.columns, tile.values), (tile.columns, tile.rows, tile.values.T)][: tile.weight]
        for rows, columns, values in sides:
            near = values.topk(min(count, values.shape[1]), largest=False)
            together = torch.cat([squares[rows], near.values], dim=1).topk(count, largest=False)
            known = torch.cat([indices[rows], near.indices + columns.start], dim=1)
            squares[rows], indices[rows] = together.values, known.gather(1, together.indices)
    own = torch.arange(len(features), device=features.device).repeat_interleave(count)
    exact = _measure_again(features, features, own, indices.flatten()).view(-1, count)
    return exact.topk(k, largest=False).values[:, -1]


def _is_less(tile: Tile, radii: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Whether squared distances are less than radii. Where rounding could decide, they are computed again."""
    assert tile.error is not None
    is_less = tile.values < radii
    rows, columns = ((tile.values - radii).abs_() < tile.error).nonzero(as_tuple=True)
    limits = radii.expand_as(is_less)[rows, columns]
    exact = _measure_again(real, fake, rows + tile.rows.start, columns + tile.columns.start)
    is_less[rows, columns] = exact < limits
    return is_less


def _measure_again(x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The squared distances of some pairs of rows, by their differences, in float64."""
    step = max(1, _NUMBERS_AT_ONCE // x.shape[1])
    parts = [
        (x[some].double() - y[others].double()).square().sum(dim=1)
        for some, others in zip(rows.split(step), columns.split(step))
    ]
    return torch.cat(parts)
