"""Scores of checkpoints on the held-out set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from imagier.config.check import Config
from imagier.data.loading.loader import Loader
from imagier.errors import UserError
from imagier.metrics.metric import AnyMetric
from imagier.recipe import Batch, Recipe
from imagier.run import build_data
from imagier.run.build_scorer import build_scorer
from imagier.run.experiment import ConfigSource
from imagier.run.inference import read_experiment_of_run
from imagier.run.options import TRAIN_SEED, RunOptions
from imagier.run.process import open_runtime
from imagier.run.weights import load_weighted_recipe, load_weights
from imagier.train.hooks import baselines
from imagier.train.runtime import Runtime
from imagier.train.scoring import GENERATOR, Measured, Scores

logger = logging.getLogger(__name__)


def evaluate(
    config_or_logdir: ConfigSource, options: RunOptions | None = None, *, overrides: Sequence[str] = ()
) -> dict[str, Scores]:
    """Scores of a checkpoint on the held-out set: by name ("generator", then the baselines) and metric.

    They are the scores that the training logged for that checkpoint; of a generator with an average, those of the
    average. The weights are those of `options.checkpoint`, or else the latest of the log folder.

    config_or_logdir: a config as of `train`, or the folder of a run. UserError for a mistake in any argument.
    """
    experiment, options = read_experiment_of_run(config_or_logdir, options, overrides)
    check_has_held_out_set(experiment.config)
    weights = load_weights(experiment, options)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        recipe, _ = load_weighted_recipe(experiment.config, weights, runtime)
        seed = _choose_seed(weights.state, options)
        evaluator = Evaluator(experiment.config, recipe, runtime, seed)
        measured = evaluator.measure(recipe)
        if measured is None:
            return {}
        return {**evaluator.scorer.score({GENERATOR: measured}), **evaluator.score_baselines(recipe, measured)}


class Evaluator:
    """What all checkpoints of a config are scored with: the held-out set, the metrics, the baselines."""

    def __init__(
        self,
        config: Config,
        recipe: Recipe,
        runtime: Runtime,
        seed: int,
        metrics: Sequence[AnyMetric] | None = None,
    ) -> None:
        """recipe: any of this config. metrics: None takes those of the config. UserError: wrong data or weights."""
        self.config = config
        self.runtime = runtime
        self.seed = seed
        assert config.run.data.val is not None
        # Each rank looks at its share, whatever the training does: images that count twice make intervals too small.
        data = replace(build_data.select_validation_data(config.run.data), val_data_loader_not_distributed=False)
        self.held_out = build_data.build_held_out_loader(config, runtime, data, config.run.data.val, seed)
        self.training = _open_training_set(config, runtime, seed)
        self.scorer = build_scorer(config, recipe, runtime, self.held_out, metrics)
        if self.training is not None:
            self.scorer.fit(recipe, partial(self.training.draw, baselines.SAMPLES, whole=True))
        self._baselines: dict[str, Measured] | None = None

    def measure(self, recipe: Recipe, update: Callable[[int, int], None] = lambda done, total: None) -> Measured | None:
        """What metrics see of the images of a recipe; None if they know nothing. update: as of `watch`."""
        make = self.scorer.generate({GENERATOR: recipe}, self.seed)
        return self.scorer.measure(recipe, watch(self.held_out, update), make).get(GENERATOR)

    def measure_real(
        self, recipe: Recipe, update: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[str, int]:
        """Looks at the held-out set alone: its SHA-256, and the number of samples. update: as of `watch`."""
        return self.scorer.measure_real(recipe, watch(self.held_out, update))

    def score_baselines(self, recipe: Recipe, generated: Measured) -> dict[str, Scores]:
        """Scores of what the generator should beat, and of real images. recipe: any of this config."""
        if self._baselines is None:
            training = None if self.training is None else partial(self.training.draw, baselines.SAMPLES)
            self._baselines = self.scorer.measure_baselines(recipe, self.held_out.once, training)
        return self.scorer.score_baselines(self._baselines, generated, self.seed)


def watch(loader: Loader, update: Callable[[int, int], None]) -> Iterator[Batch]:
    """The batches of a loader's set. update: called with (samples done, all) of all ranks, about."""
    total, batches = len(loader.dataset), loader.count_batches()
    for done, batch in enumerate(loader.once(), 1):
        yield batch
        update(total * done // batches, total)


def check_has_held_out_set(config: Config) -> None:
    """UserError if the config names no images to be scored on."""
    if config.run.data.val is None:
        raise UserError("missing section", where="data.val", advice="name the held-out set", code="no-held-out-set")


def _choose_seed(state: Mapping[str, Any], options: RunOptions) -> int:
    """That of the run that wrote the checkpoint, so that its images are drawn alike, if it is known."""
    if options.seed is not None:
        return options.seed
    return int(state.get("extras", {}).get("seed", TRAIN_SEED))


def _open_training_set(config: Config, runtime: Runtime, seed: int) -> Loader | None:
    """The training set, which only baselines need; None, with a line in the log, if it is not here."""
    try:
        return build_data.build_train_loader(config, runtime, seed)
    except UserError as error:
        logger.info(f"no baseline 'mean color', which needs the training set: {error}")
        return None
