"""The contract of a metric that compares two sets of images by their features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from imagier.metrics.features import FEATURE_SPACES
from imagier.metrics.metric import AnyMetric

Features = Literal[
    "efflite0", "inception_fid", "inception_fid_tf1", "reference_inception", "dinov2", "dinov2_large", "clip"
]
"""The names of `FEATURE_SPACES`."""


@dataclass(frozen=True)
class FeatureSet:
    """What metrics know about a set of N images."""

    features: Tensor
    """N x D, float32."""
    logits: Tensor | None = None
    """N x classes, float32, of networks that have classes."""

    def __len__(self) -> int:
        return len(self.features)


class FeatureMetric(AnyMetric):
    """One or a few numbers that say how far a set of generated images is from a set of real ones.

    A whole example:

        from imagier.metrics.feature_metric import FeatureMetric

        class Metric(FeatureMetric):
            '''Distance between the mean features.'''

            title = "Mean"

            def __init__(self, *, features: str = "efflite0") -> None:
                super().__init__(features)

            def compare(self, real, fake):
                return {"mean": (real.features.mean(dim=0) - fake.features.mean(dim=0)).norm().item()}
    """

    title: str
    """The first part of its name. The second is the label of the feature space."""

    min_images: int = 2
    """As few as this in either set are enough."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.name = f"{self.title}-{FEATURE_SPACES[features].label}"

    @abstractmethod
    def compare(self, real: FeatureSet, fake: FeatureSet) -> Mapping[str, float]:
        """The values by their short names. The first is the metric's; others may say more, such as its error."""
