"""What `imagier metrics` does: measures two sets of images, or compares two cards."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from imagier.config.check import check_options
from imagier.config.constructor import list_parameters
from imagier.config.find import find
from imagier.config.schema import METRIC
from imagier.errors import UserError
from imagier.metrics.feature_metric import FeatureMetric
from imagier.metrics.features import FeatureExtractor
from imagier.metrics.metric import AnyMetric, Metric
from imagier.nn.backbones.i3d import FRAMES
from imagier.run.clip_sets import extract_clip_features, group_clips, make_clip_card, score_clips
from imagier.run.comparison import Comparison
from imagier.run.feature_sets import MeasuredSet, check_finite, extract_features, read_features
from imagier.run.image_pairs import make_pair_card, measure_pairs, pair_images
from imagier.run.image_sets import StoredImage, hash_image_set, label_by_folder, open_image_set
from imagier.run.known_frames import INPUT_TYPES, KnownFrames
from imagier.run.progress import ProgressBar
from imagier.run.workers import count_cores
from imagier.train.card import Card, compare_protocols, join_cards, read_card
from imagier.train.feature_cache import open_feature_cache


def build_metrics(
    names: Sequence[str], features: str | None, options: Mapping[str, Any], known: Collection[str] = ()
) -> dict[str, FeatureMetric | Metric]:
    """The metrics of these names, with those of the options that each has.

    known: input types that are known of the frames of clips. UserError: a name that is none, or of a metric that needs
    more than two sets of images; an option that none has, or that its constructor refuses.
    """
    metrics: dict[str, FeatureMetric | Metric] = {}
    used: set[str] = set()
    for name in names:
        cls = find(METRIC, name)
        if not issubclass(cls, FeatureMetric):
            metrics[name] = _build_direct(cls, name, known)
            continue
        its_own = [parameter.name for parameter in list_parameters(cls)]
        own = {key: value for key, value in options.items() if key in its_own}
        used |= own.keys()
        own |= {} if features is None else {"features": features}
        metrics[name] = cls(**check_options(cls, own))
    for name in known:
        if not any(name in (*metric.needs, *metric.uses) for metric in metrics.values()):
            what = f"none of {', '.join(names)} looks at it"
            raise UserError(what, where=name, advice="leave it out, or add such a metric", code="unused-flag")
    if not metrics:
        raise UserError("no metric", where="metrics", advice="name some, such as fd or psnr", code="no-metrics")
    for key in options.keys() - used - {"seed"}:
        what = f"none of {', '.join(names)} has it"
        raise UserError(what, where=key, advice="leave it out, or add the metric that it is for", code="unused-option")
    if "subset_size" in options and "num_subsets" not in options:
        what = "kd draws no subsets"
        raise UserError(what, where="subset_size", advice="give --num_subsets, too", code="unused-option")
    return metrics


def _build_direct(cls: type[AnyMetric], name: str, known: Collection[str]) -> Metric:
    """A metric that needs to know nothing about an image but its target, or of a clip but these. UserError: more."""
    if issubclass(cls, Metric) and not cls.learns:
        if cls.needs == ("targets",) if not cls.takes_clips else set(cls.needs) <= set(known):
            return cls(**check_options(cls, {}))
        missing = [need for need in cls.needs if need not in known]
        if cls.takes_clips and set(missing) <= set(INPUT_TYPES):
            advice = f"give {' and '.join(f'--{need}' for need in missing)}"
            raise UserError(f"{name} needs {' and '.join(missing)}", where="metrics", advice=advice, code="not-known")
    what = f"{name} needs to know more of an image than its target"
    advice = "leave it out, or add it to a config's metrics and run imagier evaluate"
    raise UserError(what, where="metrics", advice=advice, code="no-pair-metric")


@dataclass(frozen=True)
class Measurement:
    """How two sets are measured."""

    metrics: Mapping[str, FeatureMetric | Metric]
    device: torch.device
    progress: ProgressBar
    input_type: str = "images"
    """That of the images, in shards and LMDBs."""
    weights: str | None = None
    """The file of the network that makes features; None: where it usually lies."""
    seed: int = 0
    known: KnownFrames | None = None
    """What is known of the frames of clips."""

    def measure(self, real: Path, fake: Path) -> Card:
        """The card of two sets of images, or of two files of features. UserError if they cannot be measured."""
        are_arrays = [path.suffix == ".npy" for path in (real, fake)]
        if any(are_arrays) and not all(are_arrays):
            what = "one set is a file of features, the other one is not"
            raise UserError(what, where=fake, advice="give images for both, or features for both", code="mixed-sets")
        of_sets = {name: metric for name, metric in self.metrics.items() if isinstance(metric, FeatureMetric)}
        pairwise = {name: metric for name, metric in self.metrics.items() if isinstance(metric, Metric)}
        if self.weights is not None and (all(are_arrays) or not of_sets):
            what = "no network makes features here"
            raise UserError(what, where="weights", advice="leave them out", code="unused-weights")
        if all(are_arrays):
            return self._compare_features(real, fake, of_sets, pairwise)
        if any(metric.takes_clips for metric in self.metrics.values()):
            return self._compare_clips((real, fake), of_sets, pairwise)
        real_images, fake_images = (open_image_set(path, self.input_type) for path in (real, fake))
        hashes = hash_image_set(real_images), hash_image_set(fake_images)
        paired: Card | None = None
        if pairwise:
            pairs = pair_images(real_images, fake_images, real, fake)
            for metric in pairwise.values():
                metric.load(self.device)
            with self.progress("comparing pairs") as update:
                scores = measure_pairs(pairs, pairwise, self.device, count_cores(), update)
            paired = make_pair_card(scores, pairwise, len(pairs), (str(real), str(fake)), hashes)
        if not of_sets and paired is not None:
            return paired
        return self._compare_images((real, fake), (real_images, fake_images), hashes, of_sets, paired)

    def _compare_features(
        self, real: Path, fake: Path, of_sets: Mapping[str, FeatureMetric], pairwise: Collection[str]
    ) -> Card:
        if pairwise:
            what = f"{', '.join(pairwise)} compares images, not features"
            raise UserError(what, where="metrics", advice="leave it out, or give images", code="no-feature-metric")
        real_set, fake_set = (read_features(path) for path in (real, fake))
        with self.progress("comparing") as update:
            return Comparison(of_sets, {"of another program": {}}, self.seed).measure(real_set, fake_set, update)

    def _compare_images(
        self,
        paths: tuple[Path, Path],
        images: tuple[Sequence[StoredImage], Sequence[StoredImage]],
        hashes: tuple[str, str],
        of_sets: Mapping[str, FeatureMetric],
        paired: Card | None,
    ) -> Card:
        """Adds what metrics say of the sets to what is known of pairs."""
        needs_labels = any("labels" in metric.needs for metric in of_sets.values())
        labels = label_by_folder(images, paths) if needs_labels else (None, None)
        cards = []
        for extractor, metrics in self._list_spaces(of_sets):
            protocol = extractor.describe()
            name = f"{self.input_type} of {paths[0].absolute()}"
            cache = open_feature_cache(extractor, name)
            sets = []
            for path, of_set, fingerprint, of_path, classes in zip(paths, images, hashes, (cache, None), labels):
                with self.progress(f"features of {path}") as update:
                    features = extract_features(of_set, extractor, self.device, count_cores(), update, of_path)
                check_finite(features.features, str(path))
                sets.append(MeasuredSet(str(path), replace(features, labels=classes), fingerprint))
            with self.progress("comparing") as update:
                comparison = Comparison(metrics, {extractor.name: protocol}, self.seed)
                cards.append(comparison.measure(sets[0], sets[1], update))
        return reduce(join_cards, cards if paired is None else [*cards, paired])

    def _list_spaces(
        self, of_sets: Mapping[str, FeatureMetric]
    ) -> Iterator[tuple[FeatureExtractor, dict[str, FeatureMetric]]]:
        """The metrics of each feature space. UserError: weights for one network, but there are several."""
        names = dict.fromkeys(metric.features for metric in of_sets.values())
        if self.weights is not None and len(names) > 1:
            what = f"are of one network, but {' and '.join(names)} are measured"
            raise UserError(
                what, where="weights", advice="name the `features` that they are for", code="several-networks"
            )
        for name in names:
            metrics = {short: metric for short, metric in of_sets.items() if metric.features == name}
            yield FeatureExtractor(name, self.device, self.weights), metrics

    def _compare_clips(
        self, paths: tuple[Path, Path], of_sets: Mapping[str, FeatureMetric], direct: Mapping[str, Metric]
    ) -> Card:
        """The card of two sets of clips. UserError: a metric of images among those of clips."""
        others = [name for name, metric in self.metrics.items() if not metric.takes_clips]
        if others:
            what = f"{', '.join(others)} is of images, not of clips"
            raise UserError(
                what, where="metrics", advice="measure it apart, on a card of its own", code="mixed-metrics"
            )
        images = [open_image_set(path, self.input_type) for path in paths]
        hashes = hash_image_set(images[0]), hash_image_set(images[1])
        clips = [group_clips(of_set, str(path)) for of_set, path in zip(images, paths)]
        cards = []
        if direct:
            scores = []
            for path, of_set in zip(paths, clips):
                with self.progress(f"clips of {path}") as update:
                    scores.append(score_clips(of_set, direct, self.device, update, self.known))
            names, counts = (str(paths[0]), str(paths[1])), (len(clips[0]), len(clips[1]))
            cards.append(make_clip_card(scores, direct, counts, names, hashes, self.known))
        for extractor, metrics in self._list_spaces(of_sets):
            sets = []
            for path, of_set, fingerprint in zip(paths, clips, hashes):
                with self.progress(f"features of {path}") as update:
                    features = extract_clip_features(of_set, extractor, self.device, str(path), update)
                sets.append(MeasuredSet(str(path), features, fingerprint))
            protocol = {**extractor.describe(), "clips": f"consecutive parts of {FRAMES} frames"}
            with self.progress("comparing") as update:
                comparison = Comparison(metrics, {extractor.name: protocol}, self.seed)
                cards.append(comparison.measure(sets[0], sets[1], update))
        return reduce(join_cards, cards)


def format_card(card: Card) -> list[list[str]]:
    """A card as rows for people: a heading, then a value each, with what makes sense of it."""
    rows = [["", "value", "95 %", "floor", "at its size", "better"]]
    for name, value in card.values.items():
        low, high = card.intervals.get(name, (math.nan, math.nan))
        margin = "-" if math.isnan(low + high) else f"± {(high - low) / 2:.2g}"
        floor = [_round(of.get(name, math.nan)) for of in (card.floor, card.at_floor_sizes)]
        better = {True: "higher", False: "lower"}[card.higher_is_better[name]] if name in card.higher_is_better else ""
        rows.append([name, _round(value), margin, *floor, better])
    return rows


def _round(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def list_differences(first: Path, second: Path) -> tuple[Card, Card, list[tuple[str, str, str]]]:
    """Two cards, and what makes them not comparable. UserError if a file is no card."""
    cards = read_card(first), read_card(second)
    return *cards, compare_protocols(*cards)
