"""Scores of generated images on the held-out set, now and then and at the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from imagier.metrics.metric import Score
from imagier.recipe import Batch, Recipe
from imagier.train.guard import copy_tensors
from imagier.train.hooks.baselines import ClassErrors
from imagier.train.hooks.log import Record
from imagier.train.image_rows import list_lacking
from imagier.train.runtime import Runtime
from imagier.train.scoring import GENERATOR, LIVE, REAL, Scorer, Scores
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View, collect_averages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far, and when it was measured."""

    value: float
    step: int


AVERAGE, REGULAR, BASELINE = "average", "regular", "baseline/"
"""What the tag of a score has after the metric: average weights, those in training, and (before its name) a baseline.
"""


MEASURED_LATER = "evaluation/num_samples"
"""The tag of records that no training wrote, but `imagier evaluate`: of so many held-out samples."""


class Evaluation:
    """Scores the generator on held-out samples, with its average weights and with those in training.

    Samples about which no metric knows enough have no score; if all are such, nothing is written.
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[Batch]],
        training: Callable[[], Iterable[Batch]] | None,
        view: View,
        write: Callable[[Record], None],
        *,
        scorer: Scorer,
        learning: Callable[[], Iterable[Batch]] | None = None,
        every: int,
        every_epochs: int,
        seed: int,
        on_scores: Callable[[int, Scores], None] = lambda step, scores: None,
    ) -> None:
        """batches: this rank's share of the held-out set. training: its share of some training samples, whose mean
        color is a baseline; None: there is no such baseline. learning: all of these, for metrics that learn.

        on_scores: called with the step and the generator's scores.
        """
        self.batches = batches
        self.training = training
        self.view = view
        self.write = write
        self.scorer = scorer
        self.learning = learning
        self.every = every
        self.every_epochs = every_epochs
        self.seed = seed
        self.on_scores = on_scores
        self.best: dict[str, Best] = {}
        """By metric."""
        self.last: dict[str, Scores] = {}
        """By what made the images (the generator, then the baselines), after `after_fit`; NaN where not defined."""
        self.by_class: dict[str, ClassErrors] = {}
        """Of the last images, for a method with class maps: those of GENERATOR and of CLASS_COLORS."""
        self._baselines: dict[str, Scores] | None = None
        """They never change: measured with the first scores."""
        self._has_learned = False

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        by_epoch = progress.epoch_ended and progress.epoch % self.every_epochs == 0
        if progress.outcome is Outcome.DONE or progress.step % self.every == 0 or by_epoch:
            trainer.settle()  # a bad iteration must not be scored
            self.last = self._evaluate(trainer, progress)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        outcome = progress.outcome if progress is not None else trainer.outcome
        if outcome is Outcome.INTERRUPTED:
            self.last = {}
            return
        if progress is None:  # the run was done before
            self.last = self._evaluate(trainer, progress)

    def remember(self, step: int, scores: Mapping[str, float]) -> None:
        """Keeps the scores that are better than all before."""
        for score in self.scorer.described:
            value, best = scores.get(score.name, math.nan), self.best.get(score.name)
            sign = -1 if score.higher_is_better else 1
            if math.isfinite(value) and (best is None or sign * value < sign * best.value):
                self.best[score.name] = Best(value, step)

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """The best scores so far, for a checkpoint."""
        return {"best": {metric: [best.value, best.step] for metric, best in self.best.items()}}

    def load_state_dict(self, state: dict[str, Any], runtime: Runtime) -> None:
        """Takes over the best scores of a saved run, of the metrics that this one has."""
        names = {score.name for score in self.scorer.described}
        self.best = {name: Best(value, step) for name, (value, step) in state["best"].items() if name in names}

    def _evaluate(self, trainer: Trainer, progress: Progress | None) -> dict[str, Scores]:
        has_average = name_weights(trainer) == AVERAGE
        if not self._has_learned and self.learning is not None:
            self.scorer.fit(trainer.recipe, self.learning)
            self._has_learned = True
        with (
            self.view.use_average_weights(trainer) as recipe,
            _use_buffers_of_first_rank((recipe, trainer.recipe), trainer.runtime),
        ):
            recipes = {GENERATOR: recipe, **({LIVE: trainer.recipe} if has_average else {})}
            measured = self.scorer.measure(recipe, self.batches(), self.scorer.generate(recipes, self.seed))
            scores = self.scorer.score(measured)
        if not scores:
            return scores
        self.by_class |= {name: of.by_class for name, of in measured.items()}
        if self._baselines is None:
            for _, line in list_lacking(self.scorer.real or {}, self.scorer.of_sets):
                logger.warning(f"no score: {line}")
            baselines = self.scorer.measure_baselines(trainer.recipe, self.batches, self.training)
            self.by_class |= {name: of.by_class for name, of in baselines.items()}
            self._baselines = self.scorer.score_baselines(baselines, measured[GENERATOR], self.seed)
        defined = _select_defined(scores[GENERATOR])
        self.remember(trainer.step, defined)
        self.on_scores(trainer.step, defined)
        if progress is not None:
            suffixes = {GENERATOR: AVERAGE if has_average else REGULAR, LIVE: REGULAR}
            suffixes |= {name: f"{BASELINE}{name}" for name in self._baselines}
            scored = {suffixes[name]: _select_defined(of) for name, of in {**scores, **self._baselines}.items()}
            values = {f"{metric}/{suffix}": of[metric] for suffix, of in scored.items() for metric in of}
            best = {f"best_{name}": self.best[name].value for name in defined if name in self.best}
            self.write(Record(progress.step, progress.epoch, {**values, **best}))
        return {**scores, **self._baselines}


@contextmanager
def _use_buffers_of_first_rank(recipes: Iterable[Recipe], runtime: Runtime) -> Iterator[None]:
    """While this is open, all ranks have the batch norm statistics of the first one, which are those in checkpoints.

    Each rank has its own. Without this, what is scored would be no single network.
    """
    networks = dict.fromkeys(network for recipe in recipes for network in recipe.networks.values())
    buffers = [buffer for network in networks for buffer in network.buffers()] if runtime.world > 1 else []
    own = [buffer.clone() for buffer in buffers]
    if buffers:
        copy_tensors(buffers, runtime.broadcast([buffer.cpu() for buffer in buffers]))
    try:
        yield
    finally:
        copy_tensors(buffers, own)


def name_weights(trainer: Trainer) -> str:
    """Which weights of the generator are scored, as the reference's tags name them."""
    return AVERAGE if trainer.recipe.generator_name in collect_averages(trainer) else REGULAR


def _select_defined(scores: Scores) -> Scores:
    return {name: value for name, value in scores.items() if not math.isnan(value)}


def format_table(scores: Mapping[str, Scores]) -> list[list[str]]:
    """Scores for people: a row of headings, then a row for each name, rounded; "not finite" of images of NaN."""
    names = dict.fromkeys(metric for of_name in scores.values() for metric in of_name)
    defined = [
        name for name in names if any(not math.isnan(of_name.get(name, math.nan)) for of_name in scores.values())
    ]
    rows = [[name, *(_round(of_name.get(metric)) for metric in defined)] for name, of_name in scores.items()]
    return [["held out", *defined], *rows]


def judge(scores: Mapping[str, Scores], described: Sequence[Score]) -> list[tuple[bool, str]]:
    """By score, whether the generator is better than every baseline, and a line that says so; none without baselines.

    A baseline whose score is not defined does not count; a generator whose score is not, is not better.
    """
    found = []
    for score in described:
        sign = -1 if score.higher_is_better else 1
        values = {
            name: of_name.get(score.name, math.nan) for name, of_name in scores.items() if name not in (LIVE, REAL)
        }
        own = values.pop(GENERATOR, math.nan)
        rivals = {name: value for name, value in values.items() if not math.isnan(value)}
        unbeaten = [name for name, value in rivals.items() if not sign * own < sign * value]
        if rivals:
            verdict = f"no better than the {' and the '.join(unbeaten)}" if unbeaten else "better than every baseline"
            found.append((not unbeaten, f"{score.name}: {verdict}"))
    return found


def format_best(best: Mapping[str, Best]) -> str:
    """The best scores for people, in one line."""
    parts = [f"{metric} {score.value:.4g} at iteration {score.step:,}" for metric, score in best.items()]
    return f"best so far: {', '.join(parts)}"


def _round(score: float | None) -> str:
    return "-" if score is None else "not finite" if math.isnan(score) else f"{score:.4g}"
