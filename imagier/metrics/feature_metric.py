"""The contract of a metric that compares two sets of images by their features."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.features import find_space
from imagier.metrics.metric import AnyMetric, Score
from imagier.metrics.user_network import UserCode

Features = (
    Literal["efflite0", "inception_fid", "inception_fid_tf1", "reference_inception", "dinov2", "dinov2_large", "clip"]
    | UserCode
)
"""The names of `FEATURE_SPACES`, or "module:name" of the user's."""


@dataclass(frozen=True)
class FeatureSet:
    """What metrics know about a set of N images."""

    features: Tensor
    """N x D, float32."""
    logits: Tensor | None = None
    """N x classes, float32, of networks that have classes."""
    labels: Tensor | None = None
    """N, int64: the class of each image, where the data have classes."""

    def __len__(self) -> int:
        return len(self.features)

    def select(self, rows: Tensor) -> FeatureSet:
        """Some of the images, by their indices or by a mask."""
        logits, labels = (None if part is None else part[rows] for part in (self.logits, self.labels))
        return FeatureSet(self.features[rows], logits, labels)


class FeatureMetric(AnyMetric):
    """One or a few numbers that say how far a set of generated images is from a set of real ones.

    A whole example:

        from imagier.metrics.feature_metric import FeatureMetric

        class Metric(FeatureMetric):
            '''Distance between the mean features.'''

            title = "Mean"
            values = {"mean": False}

            def __init__(self, *, features: str = "efflite0") -> None:
                super().__init__(features)

            def compare(self, real, fake):
                return {"mean": (real.features.mean(dim=0) - fake.features.mean(dim=0)).norm().item()}
    """

    title: ClassVar[str]
    """The first part of its name. The second is the label of the feature space."""

    values: ClassVar[Mapping[str, bool]]
    """The short names of its values, the main one first, and whether higher is better."""

    titles: ClassVar[Mapping[str, str]] = {}
    """By short name, the first part of the name of a value where that is not `title`."""

    needs: Sequence[str] = ("real",)

    needs_logits: bool = False
    """Whether it needs class logits. Features without are refused."""

    min_images: int = 2
    """As few as this in either set are enough."""

    is_biased: ClassVar[bool] = False
    """Whether sets of one distribution are far apart by it if they are small."""

    draws_images: bool = False
    """Whether it draws images at random: leaving some out then changes the draw, too, and says little of its error."""

    def __init__(self, features: str, *, per_class: bool = False) -> None:
        """per_class: `measure` returns the mean over the classes of the images, where these have classes.

        UserError: there are no such features, or they are of clips where this is of images, or the other way round.
        """
        self.features = features
        self.per_class = per_class
        self.space = find_space(features)
        if self.space.takes_clips not in (None, self.takes_clips):
            sees, wanted = ("clips", "images") if self.space.takes_clips else ("images", "clips")
            what = f"{features} sees {sees}, but {self.title} is of {wanted}"
            raise UserError(what, where="features", advice="choose others", code="wrong-features")
        if self.needs_logits and self.space.logits is None and self.space.dim:
            raise self._no_logits()
        main, self.higher_is_better = next(iter(self.values.items()))
        self.name = self.name_value(main)

    @property
    def scores(self) -> dict[str, bool]:
        return {self.name_value(short): is_better for short, is_better in self.values.items()}

    def list_scores(self, domains: Iterable[str] = ("",)) -> list[Score]:
        meanings = {score.name: score.meaning for score in super().list_scores()}
        return [
            Score(self.name_value(short, domain), is_better, meanings[self.name_value(short)])
            for domain in domains
            for short, is_better in self.values.items()
        ]

    def name_value(self, short: str, domain: str = "") -> str:
        """The name in logs of one of its values, of the images of a domain."""
        title = self.titles.get(short, self.title)
        name = self.space.names.get(title, f"{title}-{self.space.label}")
        return f"{name}_{domain}" if domain else name

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {"per_class": True} if self.per_class else {}

    def _no_logits(self) -> UserError:
        advice = "choose features whose network has classes, such as efflite0"
        return UserError(f"{self.title} needs class logits", where="features", advice=advice, code="no-logits")

    def list_classes(self, real: FeatureSet, fake: FeatureSet) -> dict[int, bool]:
        """The classes of the real images, if it goes by classes: whether both sets have enough images of each."""
        if not self.per_class or real.labels is None or fake.labels is None:
            return {}
        needed = self.min_images
        return {
            label: min(int((each == label).sum()) for each in (real.labels, fake.labels)) >= needed
            for label in real.labels.unique().tolist()
        }

    @abstractmethod
    def compare(self, real: FeatureSet, fake: FeatureSet) -> Mapping[str, float]:
        """The numbers by their short names: `values`, and others that say more about them, such as an error."""

    def check_logits(self, images: FeatureSet) -> None:
        """UserError: features without logits, which it needs."""
        if self.needs_logits and images.logits is None:
            raise self._no_logits()

    def measure(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        """`compare`, of all images or of each class; empty if there are too few, or if they lack classes.

        NaN if a feature or logit is not finite, as those of images that hold NaN are. UserError: features without
        logits, which it needs.
        """
        self.check_logits(real)
        self.check_logits(fake)
        used = [real.features, fake.features, *((real.logits, fake.logits) if self.needs_logits else ())]
        if not all(part is None or part.isfinite().all() for part in used):
            return dict.fromkeys(self.values, math.nan)
        if "labels" in self.needs and (real.labels is None or fake.labels is None):
            return {}
        if not (self.per_class and real.labels is not None and fake.labels is not None):
            return dict(self.compare(real, fake)) if min(len(real), len(fake)) >= self.min_images else {}
        of_classes = [
            self.compare(*(each.select(each.labels == label) for each in (real, fake) if each.labels is not None))
            for label, is_used in self.list_classes(real, fake).items()
            if is_used
        ]
        names = of_classes[0] if of_classes else {}
        return {name: sum(values[name] for values in of_classes) / len(of_classes) for name in names}
