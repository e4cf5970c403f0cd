"""Frechet distance of features (Heusel et al. 2017); "FID" if they are those of the 2015 Inception network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet


class Metric(FeatureMetric):
    """Frechet distance of the features of real and generated images, as if both were Gaussian.

    It is biased: sets of one distribution are d (d + 5) / (2 N) apart at first order, for N normal features of
    dimension d.
    """

    title = "FD"
    values: ClassVar[Mapping[str, bool]] = {"fd": False}
    is_biased = True

    def __init__(self, *, features: Features = "efflite0", per_class: bool = False) -> None:
        """features: The network that makes features, or "module:name" of your own.
        per_class: The mean over the classes of the images, where the data have classes.
        """
        super().__init__(features, per_class=per_class)

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        return {"fd": frechet_distance(real.features, fake.features)}


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Squared Frechet distance of the Gaussians that have the means and covariances of two sets of features.

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2) (Heusel et al. 2017, eq. 6), unbiased covariances. With the
    centered features X and Y as rows, divided by (N - 1)^(1/2), the last trace is the nuclear norm of X Y^T. That is
    exact for covariances of any rank, and fast where there are fewer images than features.

    real: N x D. fake: M x D. N and M at least 2. -> a number >= 0; NaN if the features or their
    squares are not finite.
    """
    real, fake = real.double(), fake.double()
    distance = (real.mean(dim=0) - fake.mean(dim=0)).square().sum()
    x, y = (_covariance_root(features) for features in (real, fake))
    product, traces = x @ y.T, x.square().sum() + y.square().sum()
    if not (product.isfinite().all() and (distance + traces).isfinite()):
        return float("nan")
    return max(0.0, (distance + traces - 2 * torch.linalg.svdvals(product).sum()).item())


def _covariance_root(features: Tensor) -> Tensor:
    """R with at most D rows and R^T R = the covariance of N x D features."""
    centered = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centered, mode="r").R if len(features) > features.shape[1] else centered
