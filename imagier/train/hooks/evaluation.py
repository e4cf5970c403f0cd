"""How good the images are: their distance from held-out targets, now and then and at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imagier.metrics.paired import l1, l1_changed, psnr
from imagier.recipe import Batch, Recipe
from imagier.train.hooks.log import Record
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View, averages

METRICS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "L1": lambda images, targets, start: l1(images, targets),
    "PSNR": lambda images, targets, start: psnr(images, targets),
    "L1 changed": l1_changed,
}
"""By name: (images, targets, what was there before), N x C x H x W in [0, 1] each -> N, NaN where not defined."""

HIGHER_IS_BETTER = frozenset({"PSNR"})

Scores = dict[str, float]


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far, and when it was measured."""

    value: float
    step: int


GENERATOR = "generator"
_COLOR_SAMPLES = 512


class Evaluation:
    """Scores of the averaged generator (or of the one in training, where there is no average) on held-out samples.

    Samples without a target have no score; without any that has one, nothing is written.
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[Batch]],
        training: Callable[[], Iterable[Batch]],
        view: View,
        write: Callable[[Record], None],
        *,
        every: int,
        every_epochs: int,
        seed: int,
        scored: Callable[[int, Scores], None] = lambda step, scores: None,
    ) -> None:
        """batches: this rank's share of the held-out set. training: that of the training set.

        scored: told of the generator's scores at a step.
        """
        self.batches = batches
        self.training = training
        self.view = view
        self.write = write
        self.every = every
        self.every_epochs = every_epochs
        self.seed = seed
        self.scored = scored
        self.best: dict[str, Best] = {}
        """By metric."""
        self.last: dict[str, Scores] = {}
        """By name (the generator's, then the baselines'), after `after_fit`."""

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        by_epoch = progress.epoch_ended and progress.epoch % self.every_epochs == 0
        if not progress.last and (progress.step % self.every == 0 or by_epoch):
            self._evaluate(trainer, progress)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        outcome = progress.outcome if progress is not None else trainer.outcome
        if outcome is Outcome.INTERRUPTED:
            return
        self.last = self._evaluate(trainer, progress)
        if self.last:
            self.last |= self._scores(trainer, trainer.recipe, self._baselines(trainer))

    def remember(self, step: int, scores: Mapping[str, float]) -> None:
        """Keeps those that are better than all before."""
        for metric, value in scores.items():
            best = self.best.get(metric)
            sign = -1 if metric in HIGHER_IS_BETTER else 1
            if math.isfinite(value) and (best is None or sign * value < sign * best.value):
                self.best[metric] = Best(value, step)

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """The best scores so far."""
        return {"best": {metric: [best.value, best.step] for metric, best in self.best.items()}}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Takes over the best scores of a saved run."""
        self.best = {metric: Best(value, step) for metric, (value, step) in state["best"].items()}

    def _evaluate(self, trainer: Trainer, progress: Progress | None) -> dict[str, Scores]:
        suffix = "average" if averages(trainer) else "regular"
        rng = trainer.runtime.generator(self.seed)
        with self.view.averaged(trainer) as recipe:
            scores = self._scores(trainer, recipe, lambda batch: {GENERATOR: recipe.sample(batch, rng)})
        if scores:
            self.remember(trainer.step, scores[GENERATOR])
            self.scored(trainer.step, scores[GENERATOR])
        if progress is not None and scores:
            values = {f"{metric}/{suffix}": value for metric, value in scores[GENERATOR].items()}
            self.write(Record(progress.step, progress.epoch, values))
        return scores

    def _baselines(self, trainer: Trainer) -> Callable[[Batch], dict[str, Tensor]]:
        color = self._mean_color(trainer.recipe)

        def make(batch: Batch) -> dict[str, Tensor]:
            images = trainer.recipe.baselines(batch)
            target = trainer.recipe.target(batch)
            if color is not None and target is not None:
                images["mean color"] = color[:, None, None].expand_as(target)
            return images

        return make

    def _mean_color(self, recipe: Recipe) -> Tensor | None:
        """The mean over some training images, 3 values in [-1, 1]; None if they are not there."""
        means: list[Tensor] = []
        seen = 0
        for batch in self.training():
            target = recipe.target(recipe.prepare(batch))
            seen += len(batch)
            if target is None or seen > _COLOR_SAMPLES:
                break
            means.append(target.mean(dim=(0, 2, 3)))
        return torch.stack(means).mean(dim=0) if means else None

    @torch.no_grad()
    def _scores(
        self, trainer: Trainer, recipe: Recipe, make: Callable[[Batch], Mapping[str, Tensor]]
    ) -> dict[str, Scores]:
        totals: dict[str, Tensor] = {}
        for stored in self.batches():
            batch = recipe.prepare(stored)
            target = recipe.target(batch)
            if target is None:
                break
            start = next(iter(recipe.baselines(batch).values()), target)
            for name, images in make(batch).items():
                one = _sums_and_counts(images, target, start)
                totals[name] = totals[name] + one if name in totals else one
        scores = {}
        nothing = torch.zeros(len(METRICS), 2)  # of a rank whose share is empty
        for name in trainer.runtime.broadcast(list(totals)):
            means = trainer.runtime.all_reduce_mean(totals.get(name, nothing).to(trainer.runtime.device)).tolist()
            scores[name] = {metric: total / count for metric, (total, count) in zip(METRICS, means) if count}
        return scores


def _sums_and_counts(images: Tensor, target: Tensor, start: Tensor) -> Tensor:
    """The sum of each metric over the samples for which it is defined, and their number, metrics x 2."""
    unit = [((x.float() + 1) / 2).clamp(0, 1) for x in (images, target, start)]
    values = torch.stack([metric(*unit) for metric in METRICS.values()])
    return torch.stack([values.nansum(dim=1), values.isfinite().sum(dim=1)], dim=1)


def table(scores: Mapping[str, Scores]) -> list[list[str]]:
    """Scores for people: a row of headings, then a row for each name, rounded; of images of NaN "not finite"."""
    there = [metric for metric in METRICS if any(metric in of_name for of_name in scores.values())]
    rows = [[name, *(_rounded(of_name.get(metric)) for metric in there)] for name, of_name in scores.items()]
    return [["held out", *there], *rows]


def line(best: Mapping[str, Best]) -> str:
    """The best scores for people, in one line."""
    parts = [f"{metric} {score.value:.4g} at iteration {score.step:,}" for metric, score in best.items()]
    return f"best so far: {', '.join(parts)}"


def _rounded(score: float | None) -> str:
    return "not finite" if score is None else f"{score:.4g}"
