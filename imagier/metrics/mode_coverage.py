"""Mode coverage: which classes occur, how often (Metz et al. 2017, section 3.3; Srivastava et al. 2017, section 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.classifier import Classifier, fit_classifier
from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet


class Metric(FeatureMetric):
    """Share of the classes of the real images that occur among the generated ones.

    Beside it, the KL divergence of the histogram of the generated images over these classes from that of the real ones,
    in nats, and the share of the generated images that are of none of these classes, which the histogram leaves out.

    Where the real images have classes, generated ones get theirs from a logistic regression of the real features; then
    none is outside. Elsewhere the class of an image is the largest of the logits of its features' network.
    """

    title = "Mode coverage"
    values: ClassVar[Mapping[str, bool]] = {"mode_coverage": True, "mode_kl": False, "mode_outside": False}
    titles: ClassVar[Mapping[str, str]] = {"mode_kl": "Mode KL", "mode_outside": "Outside modes"}

    def __init__(self, *, features: Features = "efflite0") -> None:
        """features: The network that makes features, or "module:name" of your own."""
        super().__init__(features)
        self._fitted: tuple[Tensor, Classifier] | None = None

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        return measure_modes(*self._classify(real, fake))

    def _classify(self, real: FeatureSet, fake: FeatureSet) -> tuple[Tensor, Tensor]:
        """The class of each real and of each generated image."""
        if real.labels is not None:
            if self._fitted is None or self._fitted[0] is not real.features:
                self._fitted = real.features, fit_classifier(real.features, real.labels)
            return real.labels, self._fitted[1].rank(fake.features)[:, 0]
        if real.logits is None or fake.logits is None:
            advice = "choose features whose network has classes, such as efflite0"
            raise UserError(f"{self.name} needs class logits", where="features", advice=advice, code="no-logits")
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
