"""How good the pictures are: their distance from held-out targets, now and then and at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from imagier.metrics.paired import l1, psnr
from imagier.recipe import Batch, Recipe
from imagier.train.hooks.log import Record
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View, averages

METRICS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"L1": l1, "PSNR": psnr}

Scores = dict[str, float]


class Evaluation:
    """Scores of the averaged generator (or of the one in training, where there is no average) on held-out samples."""

    def __init__(
        self,
        batches: Callable[[], Iterable[Batch]],
        view: View,
        write: Callable[[Record], None],
        *,
        every: int,
        every_epochs: int,
        baselines: Mapping[str, Callable[[Batch], Tensor]],
        seed: int,
    ) -> None:
        """batches: this rank's share of the held-out set. baselines: makers of pictures in [-1, 1], by name."""
        self.batches = batches
        self.view = view
        self.write = write
        self.every = every
        self.every_epochs = every_epochs
        self.baselines = baselines
        self.seed = seed
        self.last: dict[str, Scores] = {}
        """By name ("generator" and the baselines), after `after_fit`."""

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        by_epoch = progress.epoch_ended and progress.epoch % self.every_epochs == 0
        if not progress.last and (progress.step % self.every == 0 or by_epoch):
            self._evaluate(trainer, progress)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        if progress is not None and progress.outcome is Outcome.INTERRUPTED:
            return
        scores = self._evaluate(trainer, progress)
        self.last = {"generator": scores}
        for name, baseline in self.baselines.items():
            self.last[name] = self._scores(trainer, trainer.recipe, baseline)

    def _evaluate(self, trainer: Trainer, progress: Progress | None) -> Scores:
        suffix = "average" if averages(trainer) else "regular"
        rng = trainer.runtime.generator(self.seed)
        with self.view.averaged(trainer) as recipe:
            scores = self._scores(trainer, recipe, lambda batch: recipe.sample(batch, rng))
        if progress is not None:
            self.write(Record(progress.step, progress.epoch, {f"{name}/{suffix}": v for name, v in scores.items()}))
        return scores

    @torch.no_grad()
    def _scores(self, trainer: Trainer, recipe: Recipe, make: Callable[[Batch], Tensor]) -> Scores:
        totals = torch.zeros(len(METRICS) + 1, dtype=torch.float64)
        for stored in self.batches():
            batch = recipe.prepare(stored)
            target = recipe.target(batch)
            assert target is not None
            pairs = ((make(batch).float() + 1) / 2).clamp(0, 1), (target + 1) / 2
            sums = [metric(*pairs).sum().item() for metric in METRICS.values()]
            totals += torch.tensor([*sums, len(batch)], dtype=torch.float64)
        *sums, count = trainer.runtime.mean_over_ranks(totals.to(trainer.runtime.device)).tolist()
        return {name: total / count for name, total in zip(METRICS, sums)}


def table(scores: Mapping[str, Scores]) -> Sequence[Sequence[Any]]:
    """Scores as rows for people: name, and every metric rounded."""
    return [[name, *(f"{of_name[metric]:.4g}" for metric in METRICS)] for name, of_name in scores.items()]
