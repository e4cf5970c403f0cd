"""MIND: sliced Wasserstein distance of features (Berthet et al. 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet

_SCALE = 3.0
_DIRECTIONS_AT_ONCE = 64


class Metric(FeatureMetric):
    """Sliced Wasserstein distance of the features of real and generated images; needs fewer images than FD."""

    title = "MIND"
    values: ClassVar[Mapping[str, bool]] = {"mind": False}

    def __init__(
        self,
        *,
        features: Features = "efflite0",
        num_projections: Annotated[int, Field(ge=1)] = 1000,
        seed: int = 0,
    ) -> None:
        """features: The network that makes features, or "module:name" of your own.
        num_projections: Number of random lines.
        seed: Draws the lines.
        """
        super().__init__(features)
        self.num_projections = num_projections
        self.seed = seed

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {**super().describe(), "num_projections": self.num_projections, "seed": self.seed}

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        distance = sliced_wasserstein(
            real.features, fake.features, num_projections=self.num_projections, seed=self.seed
        )
        return {"mind": distance}


def sliced_wasserstein(real: Tensor, fake: Tensor, *, num_projections: int, seed: int) -> float:
    """3 D times the squared 2-Wasserstein distance on a line, averaged over random lines (Berthet et al. 2026).

    On a line it is the squared difference of the quantile functions, which sorting gives. So the sets may differ in
    size. Of X and X + c it tends to 3 |c|^2.

    real: N x D. fake: M x D. num_projections: number of lines.
    """
    dim = real.shape[1]
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(dim, num_projections, generator=rng, dtype=torch.float64).to(real.device)
    directions /= directions.norm(dim=0)
    left, right, weights = _match_quantiles(len(real), len(fake), real.device)
    total = torch.zeros((), dtype=torch.float64, device=real.device)
    for some in directions.split(_DIRECTIONS_AT_ONCE, dim=1):
        x, y = ((features.double() @ some).sort(dim=0).values for features in (real, fake))
        total += (weights @ (x[left] - y[right]).square()).sum()
    return _SCALE * dim * (total / num_projections).item()


def _match_quantiles(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The optimal plan between n and m sorted numbers: indices of both, and the mass that goes from one to the other.

    It is computed in integers, in units of 1 / (n m).
    """
    ends = torch.cat([torch.arange(1, n + 1, device=device) * m, torch.arange(1, m + 1, device=device) * n]).unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return starts // m, starts // n, (ends - starts).double() / (n * m)
