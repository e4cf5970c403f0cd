"""A dry run: config, data, weights and options are checked, the networks counted, and small ones tried."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.recipe import Position, Recipe
from imagier.run import build_data, build_training
from imagier.run.build_scorer import build_scorer
from imagier.run.experiment import Experiment
from imagier.run.options import RunOptions
from imagier.run.rehearsal import rehearse
from imagier.run.resume_plan import ResumePlan, choose_logdir
from imagier.run.session import (
    Session,
    announce,
    announce_end,
    check_compiling,
    check_data,
    describe_size,
    log_precision,
)
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


def dry_run(experiment: Experiment, options: RunOptions, runtime: Runtime) -> Session:
    """Logs what the run would be, and its whole config; then raises a UserError with all that is missing or wrong.

    The networks of the session have no weights, and its trainer has no players.
    """
    config, problems = experiment.config, _Problems()
    log_precision(config, runtime)
    problems.collect(lambda: check_compiling(config, is_compiled=options.compile))
    logdir = problems.collect(lambda: choose_logdir(options, runtime, experiment.name))
    resolved = None if logdir is None else problems.collect(lambda: ResumePlan.resolve(options, logdir, runtime))
    plan, found = (None, None) if resolved is None else resolved
    seed = 0 if plan is None else plan.seed
    training = problems.collect(lambda: build_data.build_train_loader(config, runtime, seed))
    held_out = problems.collect(lambda: build_data.build_validation_loader(config, runtime, seed))
    if training is not None:
        loader = training
        problems.collect(lambda: check_data(config, runtime, loader, held_out))
    known = {} if training is None else {"style_classes": build_data.count_classes(training.dataset)}
    recipe = problems.collect(lambda: build_training.build_weightless_recipe(config, **known))
    if recipe is not None:
        _check_weights(config, recipe, problems)
        if held_out is not None and not problems.errors:
            problems.collect(lambda: build_scorer(config, recipe, runtime, held_out))
        # With other ranks, networks on the CPU would talk to them over the process group of the GPUs.
        if training is not None and not problems.errors and runtime.world == 1:
            problems.collect(lambda: rehearse(config, recipe, training, held_out, **known))
    session = None
    if training is not None and recipe is not None and plan is not None:
        trainer = Trainer(recipe, {}, runtime, seed=seed)
        session = Session(config, options, plan, trainer, training, held_out, None, None)
        if found is not None and plan.is_resume:
            now = {key: int(found.state.get(key, 0)) for key in ("current_iteration", "current_epoch", "epoch_samples")}
            trainer.step = now["current_iteration"]
            trainer.position = training.fit_position(Position(now["current_epoch"], now["epoch_samples"]))
        announce(session)
        announce_end(session)
    elif recipe is not None:
        logger.info(describe_size(config, recipe, training, held_out))
    logger.info(config.dump())
    problems.check()
    assert session is not None
    return session


class _Problems:
    """UserErrors, for all to be raised together."""

    def __init__(self) -> None:
        self.errors: list[UserError] = []

    def collect(self, work: Callable[[], _T]) -> _T | None:
        """The result of some work; None, with the error kept, if there is one."""
        try:
            return work()
        except UserError as error:
            self.errors.append(error)
            return None

    def check(self) -> None:
        """UserError if there was one: the only one, or one with the lines of all."""
        different = {str(error): error for error in self.errors}  # two sets may lie in one folder
        if len(different) == 1:
            raise self.errors[0]
        if different:
            raise UserError("\n".join(different), code="several")


def _check_weights(config: Config, recipe: Recipe, problems: _Problems) -> None:
    """Looks for the weights of networks that losses use, and for optimizers that refuse theirs."""
    problems.collect(lambda: build_training.load_losses(recipe))
    for name, network in recipe.networks.items():
        # one number each, seen in the shape of the parameter
        shapes = nn.ParameterList(
            nn.Parameter(torch.zeros(()).expand(p.shape), requires_grad=p.requires_grad) for p in network.parameters()
        )
        section = f"{name}_opt"
        problems.collect(lambda: build_training.build_optimizer(config.optimizers[name], shapes, section))  # noqa: B023
