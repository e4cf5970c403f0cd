"""Class accuracy: do images show the class that they should (translation accuracy; Liu et al. 2019, section 4)?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from imagier.metrics.classifier import FittedOnce
from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet

_TOP = 5


class Metric(FeatureMetric):
    """Share of the generated images that a classifier takes for the class that they should have.

    The classifier is a logistic regression of the features of the real images. An image of a class that no real image
    has counts as wrong. On a card the floor, real images that the classifier has not seen, is the ceiling.
    """

    title = "Class accuracy"
    values: ClassVar[Mapping[str, bool]] = {"class_accuracy": True, "class_accuracy_top5": True}
    titles: ClassVar[Mapping[str, str]] = {"class_accuracy_top5": "Class accuracy, top 5"}
    needs = ("real", "labels")

    def __init__(self, *, features: Features = "efflite0") -> None:
        """features: The network that makes features, or "module:name" of your own."""
        super().__init__(features)
        self._classifier = FittedOnce()

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        assert real.labels is not None
        assert fake.labels is not None
        classifier = self._classifier.fit(real.features, real.labels)
        is_right = classifier.rank(fake.features) == fake.labels[:, None]
        values = {"class_accuracy": is_right[:, 0].double().mean().item()}
        if len(classifier.classes) > _TOP:
            values["class_accuracy_top5"] = is_right[:, :_TOP].any(dim=1).double().mean().item()
        return values
