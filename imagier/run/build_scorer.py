"""Builds what scores generated images: the metrics of a config, and where features of real images are kept."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Sequence

from imagier.config.check import Component, Config
from imagier.config.find import find
from imagier.config.schema import METRIC
from imagier.data.loading.loader import Loader
from imagier.errors import UserError
from imagier.metrics import kd
from imagier.metrics.feature_metric import FeatureMetric
from imagier.metrics.features import FeatureExtractor
from imagier.metrics.metric import AnyMetric
from imagier.recipe import Recipe
from imagier.train.feature_cache import open_feature_cache
from imagier.train.known import can_score
from imagier.train.runtime import Runtime
from imagier.train.scoring import Scorer

logger = logging.getLogger(__name__)

FEW = 8
"""Held-out samples that say what is known of all."""

OF_SETS, OF_SETS_FEATURES = ("fd", "kd", "prdc"), "efflite0"
"""The types of the metrics that `imagier evaluate` adds to those that need targets."""


def build_scorer(
    config: Config, recipe: Recipe, runtime: Runtime, held_out: Loader, metrics: Sequence[AnyMetric] | None = None
) -> Scorer:
    """What scores images of the held-out set. metrics: None takes those of the config.

    Those that need something that the data lack are left out. If nothing remains, it is KD, if its network is there.
    UserError: a network that a metric uses lacks its weights.
    """
    val = config.run.data.val
    assert val is not None
    name = json.dumps([config.run.data.name, *map(str, val.roots)])

    def build(chosen: Sequence[AnyMetric]) -> Scorer:
        return Scorer(
            chosen,
            runtime,
            domains=recipe.domains,
            open_cache=lambda extractor: open_feature_cache(extractor, name),
        )

    if metrics is None:
        metrics = [metric.build() for metric in config.run.metrics if is_available(metric, runtime)]
    few = recipe.prepare(held_out.some(FEW))
    samples = few.split(len(few))
    chosen = [metric for metric in metrics if any(can_score(metric, recipe, sample) for sample in samples)]
    if len(chosen) < len(metrics):
        lacking = ", ".join(metric.name for metric in metrics if metric not in chosen)
        logger.info(f"not scored by {lacking}: data.val lacks what these need, such as targets")
    if chosen or not metrics:
        return build(chosen)
    try:
        scorer = build([kd.Metric()])
    except UserError as error:
        logger.info(f"no scores: {error}")
        return build([])
    logger.info(f"scored by {scorer.described[0].name} instead")
    return scorer


def choose_metrics(config: Config, features: str | None, runtime: Runtime) -> list[Component]:
    """The metrics of a config; and FD, KD and PRDC, if none of them compares sets of images and their network is there.

    features: the space of the latter; None: `OF_SETS_FEATURES`. Optional metrics that lack weights are left out; both
    have a line in the log.
    """
    chosen = [metric for metric in config.run.metrics if is_available(metric, runtime)]
    if any(issubclass(metric.cls, FeatureMetric) for metric in chosen):
        return chosen
    added = name_metrics(OF_SETS, features or OF_SETS_FEATURES)
    try:
        FeatureExtractor(features or OF_SETS_FEATURES, runtime.device)
    except UserError as error:
        if features is not None:
            raise
        logger.info(f"no FD, KD and PRDC: {error}")
        return chosen
    return [*chosen, *added]


def name_metrics(names: Sequence[str], features: str | None) -> list[Component]:
    """Metrics by their types. UserError: an unknown name, features that do not suit one.

    features: of those that need some; None: each has its own.
    """
    components = []
    for name in dict.fromkeys(names):
        try:
            cls = find(METRIC, name)
        except UserError as error:
            raise UserError(error.what, where="metrics", advice=error.advice, code=error.code) from error
        parameters = inspect.signature(cls).parameters.values()
        options = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
        if features is not None and issubclass(cls, FeatureMetric):
            options["features"] = features
        components.append(Component(name, cls, options))
    return components


def is_available(metric: Component, runtime: Runtime) -> bool:
    """False, with a line in the log, if a metric is optional and its network lacks weights."""
    if not metric.shared.optional:
        return True
    built = metric.build()
    try:
        Scorer([built], runtime)
    except UserError as error:
        logger.info(f"no {built.name}: {error}")
        return False
    return True
