"""Scores of generated images on the held-out set, now and then and at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imagier.metrics.metric import Metric
from imagier.recipe import Batch, Recipe
from imagier.train.hooks.log import Record
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View, collect_averages

Scores = dict[str, float]
"""The value of each metric, by its name."""


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far, and when it was measured."""

    value: float
    step: int


GENERATOR = "generator"
_COLOR_SAMPLES = 512


class Evaluation:
    """Scores the averaged generator (or the one in training, where there is no average) on held-out samples.

    Samples about which no metric knows enough have no score; if all are such, nothing is written.
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[Batch]],
        training: Callable[[], Iterable[Batch]] | None,
        view: View,
        write: Callable[[Record], None],
        *,
        metrics: Sequence[Metric],
        every: int,
        every_epochs: int,
        seed: int,
        on_scores: Callable[[int, Scores], None] = lambda step, scores: None,
    ) -> None:
        """batches: this rank's share of the held-out set. training: that of the training set, whose mean color
        is a baseline; None: there is no such baseline.

        on_scores: called with the step and the generator's scores.
        """
        self.batches = batches
        self.training = training
        self.view = view
        self.write = write
        self.metrics = metrics
        self.every = every
        self.every_epochs = every_epochs
        self.seed = seed
        self.on_scores = on_scores
        self.best: dict[str, Best] = {}
        """By metric."""
        self.last: dict[str, Scores] = {}
        """By what made the images (the generator, then the baselines), after `after_fit`; NaN where not defined."""

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
        if self.last:
            self.last |= self._score(trainer, trainer.recipe, self._make_baselines(trainer))

    def remember(self, step: int, scores: Mapping[str, float]) -> None:
        """Keeps the scores that are better than all before."""
        for metric in self.metrics:
            value = scores.get(metric.name, math.nan)
            best = self.best.get(metric.name)
            sign = -1 if metric.higher_is_better else 1
            if math.isfinite(value) and (best is None or sign * value < sign * best.value):
                self.best[metric.name] = Best(value, step)

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """The best scores so far, for a checkpoint."""
        return {"best": {metric: [best.value, best.step] for metric, best in self.best.items()}}

    def load_state_dict(self, state: dict[str, Any], runtime: Runtime) -> None:
        """Takes over the best scores of a saved run, of the metrics that this one has."""
        names = {metric.name for metric in self.metrics}
        self.best = {name: Best(value, step) for name, (value, step) in state["best"].items() if name in names}

    def _evaluate(self, trainer: Trainer, progress: Progress | None) -> dict[str, Scores]:
        rng = trainer.runtime.generator(self.seed)
        _share_buffers(trainer)
        with self.view.use_average_weights(trainer) as recipe:
            scores = self._score(trainer, recipe, lambda batch: {GENERATOR: recipe.sample(batch, rng)})
        if not scores:
            return scores
        defined = {name: value for name, value in scores[GENERATOR].items() if not math.isnan(value)}
        self.remember(trainer.step, defined)
        self.on_scores(trainer.step, defined)
        if progress is not None:
            values = {f"{name}/{name_weights(trainer)}": value for name, value in defined.items()}
            self.write(Record(progress.step, progress.epoch, values))
        return scores

    def _make_baselines(self, trainer: Trainer) -> Callable[[Batch], dict[str, Tensor]]:
        color = self._measure_mean_color(trainer.recipe)

        def make(batch: Batch) -> dict[str, Tensor]:
            images = dict(trainer.recipe.baselines(batch))
            target = trainer.recipe.target(batch)
            if color is not None and target is not None:
                images["mean color"] = color[:, None, None].expand_as(target)
            return images

        return make

    def _measure_mean_color(self, recipe: Recipe) -> Tensor | None:
        """The mean over some training images, 3 values in [-1, 1]; None if there are none, or no targets.

        At least a batch, which may be larger than _COLOR_SAMPLES.
        """
        means: list[Tensor] = []
        seen = 0
        for batch in self.training() if self.training is not None else ():
            target = recipe.target(recipe.prepare(batch))
            seen += len(batch)
            if target is None or (means and seen > _COLOR_SAMPLES):
                break
            means.append(target.mean(dim=(0, 2, 3)))
        return torch.stack(means).mean(dim=0) if means else None

    @torch.no_grad()
    def _score(
        self, trainer: Trainer, recipe: Recipe, make: Callable[[Batch], Mapping[str, Tensor]]
    ) -> dict[str, Scores]:
        """The scores of the images that `make` makes of each batch, by what made them."""
        runtime = trainer.runtime
        measured: dict[str, list[Metric]] = {}
        for stored in self.batches():
            batch = recipe.prepare(stored)
            known = _collect_known(recipe, batch)
            if not any(known.keys() >= set(metric.needs) for metric in self.metrics):
                break
            for name, images in make(batch).items():
                if name not in measured:
                    measured[name] = self._make_fresh(runtime)
                for metric in measured[name]:
                    if known.keys() >= set(metric.needs):
                        metric.update(_to_unit(images), known)
        scores = {}
        for name in runtime.broadcast(list(measured)):
            metrics = measured.get(name) or self._make_fresh(runtime)  # of a rank that has no share
            for metric in metrics:
                metric.merge(runtime.all_gather)
            scores[name] = {metric.name: metric.compute() for metric in metrics}
        return scores

    def _make_fresh(self, runtime: Runtime) -> list[Metric]:
        return [metric.fresh(runtime.device) for metric in self.metrics]


@torch.no_grad()
def _share_buffers(trainer: Trainer) -> None:
    """Gives all ranks the batch norm statistics of the first one, which are those in checkpoints.

    Each rank has its own. Without this, what is scored would be no single network, and another one after a resume.
    """
    if trainer.runtime.world == 1:
        return
    buffers = [buffer for network in trainer.recipe.networks.values() for buffer in network.buffers()]
    for buffer, first in zip(buffers, trainer.runtime.broadcast([buffer.cpu() for buffer in buffers])):
        buffer.copy_(first)


def name_weights(trainer: Trainer) -> str:
    """Which weights of the generator are scored, as the reference's tags name them."""
    return "average" if trainer.recipe.generator_name in collect_averages(trainer) else "regular"


def _collect_known(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """What metrics may know about the images of a batch: see `Metric.needs`."""
    target = recipe.target(batch)
    if target is None:
        return {}
    start = next(iter(recipe.baselines(batch).values()), target)
    return {"targets": _to_unit(target), "start": _to_unit(start)}


def _to_unit(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> the same in [0, 1], float32."""
    return ((images.float() + 1) / 2).clamp(0, 1)


def format_table(scores: Mapping[str, Scores]) -> list[list[str]]:
    """Scores for people: a row of headings, then a row for each name, rounded; of images of NaN "not finite"."""
    names = dict.fromkeys(metric for of_name in scores.values() for metric in of_name)
    defined = [metric for metric in names if any(not math.isnan(of_name[metric]) for of_name in scores.values())]
    rows = [[name, *(_round(of_name[metric]) for metric in defined)] for name, of_name in scores.items()]
    return [["held out", *defined], *rows]


def format_best(best: Mapping[str, Best]) -> str:
    """The best scores for people, in one line."""
    parts = [f"{metric} {score.value:.4g} at iteration {score.step:,}" for metric, score in best.items()]
    return f"best so far: {', '.join(parts)}"


def _round(score: float) -> str:
    return "not finite" if math.isnan(score) else f"{score:.4g}"
