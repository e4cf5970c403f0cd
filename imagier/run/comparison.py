"""Numbers about two sets of images, with how sure they are and what is the best that could be reached."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from imagier.errors import UserError
from imagier.metrics.feature_metric import FeatureMetric, FeatureSet
from imagier.metrics.metric import AnyMetric, Metric
from imagier.run.about import find_version
from imagier.run.feature_sets import MeasuredSet
from imagier.run.intervals import GROUPS, MOST_IMAGES_FOR_INTERVALS, measure_intervals
from imagier.train.card import Card
from imagier.train.scoring import draw_images, split_real

_SMALL_SET = 2000

T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """Metrics, and how they are applied."""

    metrics: Mapping[str, FeatureMetric]
    """By the names of their types."""
    features: Mapping[str, Mapping[str, Any]]
    """How features were made, by their name, for the protocol."""
    seed: int = 0
    """Draws which real images stand for generated ones in the floor, and the groups of the intervals."""

    def measure(self, real: MeasuredSet, fake: MeasuredSet, update: Callable[[int, int], None]) -> Card:
        """The card of generated images. update: called with (done, total). UserError: sets that cannot be compared."""
        self._check(real, fake)
        has_intervals = len(real.features) + len(fake.features) <= MOST_IMAGES_FOR_INTERVALS
        total = 3 + (GROUPS if has_intervals else 0)
        values = self._compare(real.features, fake.features)
        update(1, total)
        drawn, others = split_real(real.features, len(fake.features), self.seed)
        floor = self._compare(others, drawn)
        update(2, total)
        at_floor_sizes = self._compare(others, draw_images(fake.features, len(drawn), self.seed))
        update(3, total)
        intervals = {}
        if has_intervals:
            intervals = measure_intervals(
                lambda rows: self._compare(real.features, fake.features.select(rows)),
                {name: values[name] for name in self._list_smooth() if name in values},
                len(fake.features),
                self.seed,
                lambda group: update(3 + group, total),
            )
        return Card(
            values=values,
            intervals=intervals,
            floor=floor,
            floor_sizes=(len(drawn), len(others)),
            at_floor_sizes=at_floor_sizes,
            protocol={
                "features": dict(self.features),
                "metrics": describe_metrics(self.metrics),
                "num_real": len(real.features),
                "num_fake": len(fake.features),
                "real_sha256": real.fingerprint,
                "seed": self.seed,
            },
            subject={"real": real.where, "fake": fake.where, "fake_sha256": fake.fingerprint},
            warnings=list_warnings(list(self.metrics.values()), real.features, fake.features),
            made_by=describe_program(),
            higher_is_better={
                name: is_better for metric in self.metrics.values() for name, is_better in metric.values.items()
            },
        )

    def _compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        values: dict[str, float] = {}
        for metric in self.metrics.values():
            values |= metric.measure(real, fake)
        return values

    def _list_smooth(self) -> list[str]:
        """The values whose intervals a jackknife tells."""
        return [name for metric in self.metrics.values() if not metric.draws_images for name in metric.values]

    def _check(self, real: MeasuredSet, fake: MeasuredSet) -> None:
        dims = [each.features.features.shape[1] for each in (real, fake)]
        if dims[0] != dims[1]:
            what = f"features of {dims[1]} numbers, but those of {real.where} have {dims[0]}"
            raise UserError(what, where=fake.where, advice="take both from one network", code="other-features")
        for each in (real, fake):
            without = [metric.name for metric in self.metrics.values() if "labels" in metric.needs]
            if without and each.features.labels is None:
                what = f"has no classes, which {', '.join(without)} needs"
                raise UserError(what, where=each.where, advice="give images, in a folder a class", code="no-classes")
            needed = max(metric.min_images for metric in self.metrics.values())
            if len(each.features) < needed:
                names = ", ".join(metric.name for metric in self.metrics.values() if metric.min_images == needed)
                what = f"{len(each.features)} image{'s' * (len(each.features) != 1)}, but {names} needs {needed}"
                raise UserError(what, where=each.where, advice="add images", code="too-few-images")


def describe_metrics(metrics: Mapping[str, AnyMetric]) -> dict[str, dict[str, Any]]:
    """The options of metrics, by the names of their types, for the protocol; {} for those that have none."""
    return {name: dict(metric.describe()) for name, metric in metrics.items()}


def name_values(short: str, metric: Metric, by_name: Mapping[str, T]) -> dict[str, T]:
    """What belongs to the numbers of a metric, by their names on cards: the main one's is the name of the type."""
    return {short if name == metric.name else f"{short}: {name}": value for name, value in by_name.items()}


def name_directions(metrics: Mapping[str, Metric]) -> dict[str, bool]:
    """Whether higher is better, by the names of `name_values`."""
    named = [name_values(short, metric, metric.scores) for short, metric in metrics.items()]
    return {name: is_better for of_metric in named for name, is_better in of_metric.items()}


def list_warnings(metrics: Sequence[FeatureMetric], real: FeatureSet, fake: FeatureSet) -> list[str]:
    """Where the numbers mean little."""
    warnings = []
    dim, count = real.features.shape[1], min(len(real), len(fake))
    limit = max(_SMALL_SET, dim)
    for title in dict.fromkeys(metric.title for metric in metrics if metric.is_biased and count < limit):
        warnings.append(
            f"{title} of {count:,} images is mostly bias: compare it with its floor alone, or use {limit:,}; "
            "KD has no such bias"
        )
    for metric in metrics:
        classes = metric.list_classes(real, fake)
        if not all(classes.values()):
            warnings.append(
                f"{metric.name} is of {sum(classes.values())} of the {len(classes)} classes of the real images: "
                "one of the sets has too few images of the others"
            )
    for name, features in (("real", real), ("generated", fake)):
        if (features.features == features.features[0]).all():
            warnings.append(f"all {name} images have the same features")
    return warnings


def describe_program() -> dict[str, str]:
    """What measured, and when."""
    return {
        "imagier": find_version("imagier"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
