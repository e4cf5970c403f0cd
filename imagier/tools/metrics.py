"""What `imagier metrics` does: measures two sets of images, or compares two cards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from imagier.config.constructor import list_options
from imagier.config.find import find
from imagier.config.schema import METRIC
from imagier.errors import UserError
from imagier.metrics.feature_metric import FeatureMetric
from imagier.metrics.features import FeatureExtractor
from imagier.run.card import Card, compare_protocols, read_card
from imagier.run.comparison import Comparison
from imagier.run.feature_sets import MeasuredSet, check_finite, extract_features, read_features
from imagier.run.image_sets import hash_images, open_image_set
from imagier.run.workers import count_cores
from imagier.tools.progress import ProgressBar

_HIGHER = {"precision", "recall", "density", "coverage", "is"}


def build_metrics(names: Sequence[str], features: str, options: Mapping[str, Any]) -> list[FeatureMetric]:
    """The metrics of these names, with those of the options that each has.

    UserError: a name that is none, or is no metric of features; an option that no metric has.
    """
    metrics: list[FeatureMetric] = []
    used: set[str] = set()
    for name in names:
        cls = find(METRIC, name)
        if not issubclass(cls, FeatureMetric):
            what = f"{name} compares each image with its target, not two sets"
            raise UserError(what, where="metrics", advice="leave it out", code="no-feature-metric")
        known = list_options(cls.__init__)
        own = {key: value for key, value in options.items() if known is None or key in known}
        used |= own.keys()
        metrics.append(cls(features=features, **own))
    for key in options.keys() - used - {"seed"}:
        what = f"none of {', '.join(names)} has it"
        raise UserError(what, where=key, advice="leave it out, or add the metric that it is for", code="unused-option")
    return metrics


def measure(
    real: Path,
    fake: Path,
    metrics: Sequence[FeatureMetric],
    progress: ProgressBar,
    *,
    options: Mapping[str, Any],
    device: torch.device,
    input_type: str = "images",
    weights: str | None = None,
    seed: int = 0,
) -> Card:
    """The card of two sets of images, or of two files of features. UserError if they cannot be measured."""
    are_arrays = [path.suffix == ".npy" for path in (real, fake)]
    if any(are_arrays) and not all(are_arrays):
        what = "one set is a file of features, the other one is not"
        raise UserError(what, where=fake, advice="give images for both, or features for both", code="mixed-sets")
    description: dict[str, Any]
    if all(are_arrays):
        real_set, fake_set = (read_features(path) for path in (real, fake))
        description = {"features": "of another program"}
    else:
        extractor = FeatureExtractor(metrics[0].features, device, weights)
        real_set, fake_set = (_measure_images(path, input_type, extractor, device, progress) for path in (real, fake))
        description = dict(extractor.describe())
    comparison = Comparison(metrics, dict(options), description, seed)
    with progress("comparing") as update:
        return comparison.measure(real_set, fake_set, update)


def _measure_images(
    path: Path, input_type: str, extractor: FeatureExtractor, device: torch.device, progress: ProgressBar
) -> MeasuredSet:
    images = open_image_set(path, input_type)
    with progress(f"features of {path}") as update:
        features = extract_features(images, extractor, device, count_cores(), update)
    check_finite(features.features, str(path))
    return MeasuredSet(str(path), features, hash_images(images))


def format_card(card: Card) -> list[list[str]]:
    """A card as rows for people: a heading, then a value each."""
    rows = [["", "value", "95 % interval", "floor", ""]]
    for name, value in card.values.items():
        interval = card.intervals.get(name)
        between = f"{_round(interval[0])} to {_round(interval[1])}" if interval else "-"
        better = "higher is better" if name in _HIGHER else "" if "error" in name else "lower is better"
        rows.append([name, _round(value), between, _round(card.floor.get(name, math.nan)), better])
    return rows


def _round(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def list_differences(first: Path, second: Path) -> tuple[Card, Card, list[tuple[str, str, str]]]:
    """Two cards, and what makes them not comparable. UserError if a file is no card."""
    cards = read_card(first), read_card(second)
    return *cards, compare_protocols(*cards)
