"""Frechet video distance (Unterthiner et al. 2018): that of the logits of I3D, for clips of 16 frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from imagier.metrics.fd import frechet_distance
from imagier.metrics.feature_metric import FeatureMetric, FeatureSet
from imagier.metrics.user_network import UserCode


class Metric(FeatureMetric):
    """Frechet distance of the features of real and generated clips, each cut into parts of 16 frames.

    Biased as FD is: as 400 features need many clips, compare it with its floor.
    """

    title = "FVD"
    values: ClassVar[Mapping[str, bool]] = {"fvd": False}
    is_biased = True
    takes_clips = True

    def __init__(self, *, features: Literal["i3d"] | UserCode = "i3d") -> None:
        """features: The network that makes features, or "module:name" of your own, which gets clips, N x 16 x 3 x H x W
        in [0, 1].
        """
        super().__init__(features)

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        return {"fvd": frechet_distance(real.features, fake.features)}
