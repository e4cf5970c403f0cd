"""Scores of one checkpoint on the held-out set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from imagier.config.check import Config
from imagier.data.loading.loader import Loader
from imagier.errors import UserError
from imagier.run import build_data
from imagier.run.experiment import ConfigSource
from imagier.run.inference import load_recipe, load_weights, read_experiment_of_run
from imagier.run.options import TRAIN_SEED, RunOptions
from imagier.run.process import open_runtime
from imagier.train.hooks import baselines
from imagier.train.hooks.evaluation import Evaluation, Scores
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer
from imagier.train.view import View

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
    config = experiment.config
    if config.run.data.val is None:
        raise UserError("missing section", where="data.val", advice="name the held-out set", code="no-held-out-set")
    weights = load_weights(experiment, options)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        recipe = load_recipe(config, weights, runtime)
        seed = _choose_seed(weights.state, options)
        held_out = build_data.build_validation_loader(config, runtime, seed)
        assert held_out is not None
        training = _open_training_set(config, runtime, seed)
        hook = Evaluation(
            held_out.once,
            partial(training.draw, baselines.SAMPLES) if training is not None else None,
            View(lambda recipe: nullcontext()),  # a checkpoint holds the measured statistics of batch norms
            write=lambda record: None,
            metrics=[metric.build() for metric in config.run.metrics],
            every=1,
            every_epochs=1,
            seed=seed,
        )
        hook.after_fit(Trainer(recipe, {}, runtime, seed=seed), None)
    return hook.last


def _choose_seed(state: Mapping[str, Any], options: RunOptions) -> int:
    """That of the run that wrote the checkpoint, so that its images are drawn alike, if it is known."""
    if options.seed is not None:
        return options.seed
    return int(state.get("extras", {}).get("seed", TRAIN_SEED))


def _open_training_set(config: Config, runtime: Runtime, seed: int) -> Loader | None:
    """The training set, which only the baseline "mean color" needs; None, with a line in the log, if it is not here."""
    try:
        return build_data.build_train_loader(config, runtime, seed)
    except UserError as error:
        logger.info(f"no baseline 'mean color', which needs the training set: {error}")
        return None
