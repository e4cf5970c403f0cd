"""Builds what scores generated images: the metrics of a config, and where features of real images are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from imagier.config.check import Config
from imagier.data.loading.loader import Loader
from imagier.errors import UserError
from imagier.metrics import kd
from imagier.metrics.metric import AnyMetric
from imagier.recipe import Recipe
from imagier.train.feature_cache import FeatureCache, find_cache_folder
from imagier.train.runtime import Runtime
from imagier.train.scoring import Scorer, can_score

logger = logging.getLogger(__name__)


def build_scorer(
    config: Config, recipe: Recipe, runtime: Runtime, held_out: Loader, metrics: Sequence[AnyMetric] | None = None
) -> Scorer:
    """What scores images of the held-out set. metrics: None takes those of the config.

    Where these need targets and the data have none, it is KD instead, if its network is there. UserError: a network
    that a metric uses lacks its weights.
    """
    val = config.run.data.val
    assert val is not None
    name = json.dumps([config.run.data.name, *map(str, val.roots)])

    def build(chosen: Sequence[AnyMetric]) -> Scorer:
        return Scorer(
            chosen,
            runtime,
            domains=recipe.domains,
            open_cache=lambda protocol: FeatureCache(find_cache_folder() / "features", protocol, name),
        )

    if metrics is not None:
        return build(metrics)
    chosen = [metric.build() for metric in config.run.metrics]
    if not chosen or can_score(chosen, recipe, recipe.prepare(held_out.some(1))):
        return build(chosen)
    names = ", ".join(metric.name for metric in chosen)
    try:
        scorer = build([kd.Metric()])
    except UserError as error:
        logger.info(f"no scores: {names} need targets, which data.val lacks; and for KD-EffLite0, {error}")
        return build([])
    logger.info(f"scored by {scorer.described[0].name}: {names} need targets, which data.val lacks")
    return scorer
