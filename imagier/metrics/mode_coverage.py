"""Mode coverage: which classes occur, how often (Metz et al. 2017, section 3.3; Srivastava et al. 2017, section 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from imagier.metrics.classifier import FittedOnce
from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet


class Metric(FeatureMetric):
    """Share of the classes of the real images that occur among the generated ones.

    Beside it, the KL divergence of the histogram of the generated images over these classes from that of the real ones,
    in nats, and the share of the generated images that are of none of these classes, which the histogram leaves out.

    By labels, generated images get theirs from a logistic regression of the real features; then none is outside. By
    logits, the class of an image is the largest of those of its features' network.
    """

    title = "Mode coverage"
    values: ClassVar[Mapping[str, bool]] = {"mode_coverage": True, "mode_kl": False, "mode_outside": False}
    titles: ClassVar[Mapping[str, str]] = {"mode_kl": "Mode KL", "mode_outside": "Outside modes"}

    def __init__(self, *, features: Features = "efflite0", classes: Literal["labels", "logits"] = "labels") -> None:
        """features: The network that makes features, or "module:name" of your own.
        classes: Those of the data, or those of the network that makes the features.
        """
        self.classes = classes
        self.needs = ("real", "labels") if classes == "labels" else ("real",)
        self.needs_logits = classes == "logits"
        super().__init__(features)
        self._classifier = FittedOnce()

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {**super().describe(), "classes": self.classes}

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        return measure_modes(*self._classify(real, fake))

    def _classify(self, real: FeatureSet, fake: FeatureSet) -> tuple[Tensor, Tensor]:
        """The class of each real and of each generated image."""
        if self.classes == "labels":
            assert real.labels is not None
            return real.labels, self._classifier.fit(real.features, real.labels).rank(fake.features)[:, 0]
        assert real.logits is not None
        assert fake.logits is not None
        return real.logits.argmax(dim=1), fake.logits.argmax(dim=1)


def measure_modes(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Coverage, KL divergence in nats, and share outside, of the classes of generated images.

    real: N class ids, N at least 1. fake: M class ids.
    """
    classes, counts = real.unique(return_counts=True)
    matches = fake[:, None] == classes
    occurring = matches.sum(dim=0).double()
    inside = occurring.sum().item()
    generated, wanted = occurring / inside, counts / counts.sum()
    divergence = torch.special.xlogy(generated, generated / wanted).sum().item() if inside else math.nan
    return {
        "mode_coverage": (occurring > 0).double().mean().item(),
        "mode_kl": divergence,
        "mode_outside": 1 - inside / len(fake) if len(fake) else math.nan,
    }
