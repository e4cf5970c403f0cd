"""Everything that a run is made of, built and checked before its first iteration."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from imagier.config.check import Config
from imagier.config.schema import BIG
from imagier.data.loading.loader import Loader
from imagier.errors import UserError
from imagier.metrics.metric import Score
from imagier.recipe import Recipe
from imagier.run import build_data, build_training
from imagier.run.build_scorer import build_scorer
from imagier.run.options import RunOptions
from imagier.run.quick_check import quick_check
from imagier.run.resume_plan import ResumePlan
from imagier.run.saving import find_next_save
from imagier.train import runtime as runtimes
from imagier.train.clock import Stopwatch
from imagier.train.runtime import Runtime
from imagier.train.scoring import Scorer
from imagier.train.trainer import Clock, Trainer, no_clock

logger = logging.getLogger(__name__)

MOST_PROBLEMS = 20
"""Files that are named; of further ones, only their number is."""


@dataclass(frozen=True)
class Session:
    """The parts of one run."""

    config: Config
    options: RunOptions
    plan: ResumePlan
    trainer: Trainer
    training: Loader
    held_out: Loader | None
    scorer: Scorer | None
    """What scores the images of the held-out set; None without one."""
    stopwatch: Stopwatch | None
    """None: the parts of an iteration are not timed."""

    @property
    def runtime(self) -> Runtime:
        """What this process runs on."""
        return self.trainer.runtime

    @property
    def scores(self) -> Sequence[Score]:
        """What people should know of each number that the generator is scored by."""
        return () if self.scorer is None else self.scorer.described

    @property
    def total_steps(self) -> int:
        """The iteration at which the run is done, by what is left of it: its steps may have had another size."""
        left = self.training.steps_until(self.config.run.max_epoch, self.trainer.position)
        return min(self.config.run.max_iter, self.trainer.step + left)


def build_session(
    config: Config, options: RunOptions, plan: ResumePlan, runtime: Runtime, held_out_batches: int | None = None
) -> Session:
    """Builds loaders, networks and trainer, with first weights. UserError if data or config are not right.

    held_out_batches: evaluate on this many batches instead of on the whole held-out set.
    """
    set_up_runtime(config, runtime, is_compiled=options.compile)
    training, held_out = _build_loaders(config, runtime, plan.seed, held_out_batches)
    check_data(config, runtime, training, held_out)
    stopwatch = Stopwatch(runtime) if config.run.speed_benchmark else None
    trainer = build_trainer(config, runtime, training, plan.seed, stopwatch or no_clock)
    scorer = None if held_out is None else build_scorer(config, trainer.recipe, runtime, held_out)
    return Session(config, options, plan, trainer, training, held_out, scorer, stopwatch)


def set_up_runtime(config: Config, runtime: Runtime, *, is_compiled: bool) -> None:
    """Sets cudnn's flags, TF32 and the precision for a training. UserError if it cannot be compiled, but is to be."""
    check_compiling(config, is_compiled=is_compiled)
    cudnn = config.run.cudnn
    runtimes.set_cudnn(deterministic=cudnn.deterministic, benchmark=cudnn.benchmark)
    runtimes.set_tf32(config.trainer.tf32, runtime.device)
    log_precision(config, runtime)


def check_compiling(config: Config, *, is_compiled: bool) -> None:
    """UserError if networks are to be compiled that cannot be."""
    if is_compiled and config.trainer.checkpoint_activations:
        advice = "leave it out, or --compile"
        raise UserError("is not compiled", where="trainer.checkpoint_activations", advice=advice, code="not-compiled")


def log_precision(config: Config, runtime: Runtime) -> None:
    """Chooses the precision of the runtime, and logs what the run computes on."""
    trainer = config.trainer
    runtime.precision, why = runtimes.choose_precision(trainer.precision, trainer.amp_config.enabled, runtime.device)
    logger.info(f"{runtime.describe()} ({why})")


def build_trainer(config: Config, runtime: Runtime, training: Loader, seed: int, clock: Clock = no_clock) -> Trainer:
    """Recipe and players with first weights, for the data of a loader. UserError if config or weights are wrong."""
    classes = build_data.count_classes(training.dataset)
    recipe = build_training.build_recipe(config, runtime, seed, style_classes=classes)
    players = build_training.build_players(config, recipe, runtime)
    return Trainer(recipe, players, runtime, seed=seed, accumulate=config.trainer.accumulate, clock=clock)


def describe_size(config: Config, recipe: Recipe, training: Loader | None, held_out: Loader | None) -> str:
    """How large networks and data are, in a line. Without data: the networks alone."""
    counts = ", ".join(
        f"{name} {sum(p.numel() for p in network.parameters()):,}" for name, network in recipe.networks.items()
    )
    samples = f"; {len(training.dataset):,} samples" if training is not None else ""
    held = f", {len(held_out.dataset):,} held out" if training is not None and held_out is not None else ""
    return f"{config.trainer.type}: parameters {counts}{samples}{held}"


def announce(session: Session) -> None:
    """Logs what a user should know before the first iteration."""
    config, training = session.config, session.training
    logger.info(describe_size(config, session.trainer.recipe, training, session.held_out))
    for note in session.plan.notes:
        logger.info(note)
    logger.info(str(session.plan))


def announce_end(session: Session) -> None:
    """Logs what a user should know of the iterations to come, once the trainer stands where the run continues."""
    total, trainer = session.total_steps, session.trainer
    if total <= trainer.step:
        return
    if total >= BIG:
        logger.info("this run has no end: neither max_iter nor max_epoch is set")
    if find_next_save(session.config.run, session.training, trainer) >= total:
        logger.info("no checkpoint before the end: neither snapshot_save_iter nor snapshot_save_epoch comes before it")
    left = total - trainer.step if total < BIG else 1
    last_epoch = session.training.epoch_after(left - 1, trainer.position)
    for name, player in trainer.players.items():
        now, last = (
            (trainer.step, trainer.step + left - 1) if player.by_iteration else (trainer.position.epoch, last_epoch)
        )
        if player.lr_at(last) == 0:
            since = now + bisect_left(range(now, last), True, key=lambda time: player.lr_at(time) == 0)
            unit = "iteration" if player.by_iteration else "epoch"
            logger.info(f"{name}_opt: the learning rate is 0 from {unit} {since:,} on")


def _build_loaders(
    config: Config, runtime: Runtime, seed: int, held_out_batches: int | None
) -> tuple[Loader, Loader | None]:
    training = build_data.build_train_loader(config, runtime, seed)
    held_out = build_data.build_validation_loader(config, runtime, seed)
    if held_out is not None:
        held_out.most_batches = held_out_batches
    return training, held_out


def check_data(config: Config, runtime: Runtime, training: Loader, held_out: Loader | None) -> None:
    """Reads some samples of each set. If a file is wrong, all ranks raise a UserError that names it."""
    problems: list[str] = []
    if runtime.is_main:
        skips = config.run.data.on_error == "skip"
        codecs = training.dataset.spec.codecs
        labels = build_data.list_plain_labels(config)
        problems += quick_check(
            training.dataset, batch_size=training.batch_size, codecs=codecs, labels=labels, is_skipping=skips
        )
        if held_out is not None:
            problems += quick_check(held_out.dataset, batch_size=held_out.batch_size, is_skipping=skips)
    if runtime.all_reduce_max(len(problems)):
        more = len(problems) - MOST_PROBLEMS
        lines = [*problems[:MOST_PROBLEMS], *([f"... and {more} more files"] if more > 0 else [])]
        raise UserError("\n".join(lines), code="wrong-files")
