"""Readings of a run's health: a few cheap measurements now and then, and a line where they mean trouble."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.recipe import Batch, Recipe
from imagier.train.health import (
    DIVERSITY,
    FAKE_ACCURACY,
    IN_A_ROW,
    LOGITS_GAP,
    NEAREST,
    REAL_ACCURACY,
    Verdicts,
    tag_update_ratio,
)
from imagier.train.hooks.log import Record
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Progress, Trainer
from imagier.train.view import View

logger = logging.getLogger(__name__)

SIDE_PX = 16
"""Images are compared at this size, in which their detail does not count."""

MOST_TRAINING_IMAGES = 256

FIRST_LOOK = 50
"""The iteration after which a player that has not moved at all is reported."""


class Health:
    """Reads, every so many iterations, on the first rank alone:

    * the share of the discriminator's logits that are right, on real and on generated images, and the gap between their
      means (over all discriminators and positions);
    * the share of its weights that an update changes, of every player that the iteration updates (L2 norms; the mean
      of several updates);
    * how different generated images are from each other, as a share of the most so far (mean L1 over all pairs);
    * how far they are from the nearest training image, in units of how far held-out images are from theirs.

    After the first FIRST_LOOK iterations it looks at the weights alone, over all updates so far.
    """

    def __init__(
        self,
        training: Callable[[], Batch],
        held_out: Batch | None,
        bank: Callable[[], Iterable[Batch]],
        view: View,
        write: Callable[[Record], None],
        *,
        players: Sequence[str],
        every: int,
        seed: int,
    ) -> None:
        """training: a few training samples. held_out: a few held-out ones. bank: batches of training images to compare
        with. players: those of the run.
        """
        self.training = training
        self.held_out = held_out
        self.bank = bank
        self.view = view
        self.write = write
        self.every = every
        self.seed = seed
        self.verdicts = Verdicts(players)
        self._samples: Batch | None = None
        self._training_images: Tensor | None = None
        self._weights: dict[str, list[Tensor]] = {}
        """Those of each player at an earlier iteration."""
        self._updates: Counter[str] = Counter()
        """Since then, by player."""

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        if not trainer.runtime.is_main:
            return
        self._updates.update(phase.player for phase in progress.phases)
        lines: list[str] = []
        if progress.step % self.every == 0:
            reading, lines = self.verdicts.read(progress.step, self.measure(trainer))
            self.write(Record(progress.step, progress.epoch, reading))
        elif progress.step == FIRST_LOOK and self._weights:
            ratios = read_numbers(self._update_ratios(trainer.players))
            _, lines = self.verdicts.read(progress.step, ratios, counts_as=IN_A_ROW)
        for line in lines:
            logger.warning(line)
        self.prepare(trainer, progress.step)

    def prepare(self, trainer: Trainer, step: int) -> None:
        """Copies the weights after `step` iterations, or where a run continues, if what follows is to be measured."""
        if trainer.runtime.is_main and (step == 1 or (step + 1) % self.every == 0):
            self._weights = {name: _copy_weights(of) for name, of in trainer.players.items()}
            self._updates.clear()

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        """The last verdicts are in the report."""

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """The state of the verdicts."""
        return self.verdicts.state_dict()

    def load_state_dict(self, state: dict[str, Any], runtime: Runtime) -> None:
        """Continues from what `state_dict` returned."""
        self.verdicts.load_state_dict(state)

    def measure(self, trainer: Trainer) -> dict[str, float]:
        """One reading, by tag. It changes nothing: networks are in eval mode, and randomness is its own."""
        values = self._update_ratios(trainer.players)
        if self._samples is None:
            self._samples = self.training()
        with self.view.use_live_weights(trainer) as recipe:
            values |= self._discriminator(recipe, self._samples, trainer.runtime.generator(self.seed))
            shown = self.held_out or self._samples
            values |= self._images(recipe, shown, trainer.runtime.generator(self.seed))
        return read_numbers(values)

    def _update_ratios(self, players: Mapping[str, Player]) -> dict[str, Tensor]:
        """Of the players with updates since their weights were copied, which forgets these."""
        ratios = {}
        for name, before in self._weights.items():
            after = _copy_weights(players[name])
            if not self._updates[name]:
                continue
            moved = torch.nn.utils.get_total_norm(torch._foreach_sub(after, before)) / self._updates[name]
            ratios[tag_update_ratio(name)] = moved / torch.nn.utils.get_total_norm(before).clamp(min=1e-12)
        self._weights = {}
        return ratios

    def _discriminator(self, recipe: Recipe, samples: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        discriminator_logits = recipe.discriminator_logits(recipe.prepare(samples), rng)
        if discriminator_logits is None:
            return {}
        real, fake = (torch.cat([x.float().flatten() for x in side]) for side in discriminator_logits)
        right = {REAL_ACCURACY: (real > 0).float().mean(), FAKE_ACCURACY: (fake < 0).float().mean()}
        return {**right, LOGITS_GAP: real.mean() - fake.mean()}

    def _images(self, recipe: Recipe, samples: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        batch = recipe.prepare(samples)
        made = shrink(recipe.sample(batch, rng))
        values = {}
        if len(made) > 1:
            count = len(made)
            values[DIVERSITY] = torch.cdist(made, made, p=1).sum() / (made.shape[1] * count * (count - 1))
        target = recipe.target(batch)
        if self.held_out is not None and target is not None:
            known = self._known(recipe)
            if known is not None:
                usual = find_nearest(shrink(target), known).mean().clamp(min=1e-6)
                values[NEAREST] = find_nearest(made, known).mean() / usual
        return values

    def _known(self, recipe: Recipe) -> Tensor | None:
        """Some training images, n x d; None if the set has no targets."""
        if self._training_images is None:
            found: list[Tensor] = []
            for batch in self.bank():
                target = recipe.target(recipe.prepare(batch))
                if target is None:
                    return None
                found.append(shrink(target))
                if sum(map(len, found)) >= MOST_TRAINING_IMAGES:
                    break
            self._training_images = torch.cat(found)
        return self._training_images


def _copy_weights(player: Player) -> list[Tensor]:
    """Those that are frozen now, too: phases may freeze and free them."""
    return [p.detach().clone() for group in player.optimizer.param_groups for p in group["params"]]


def read_numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars on the device, by name -> on the host."""
    return dict(zip(values, torch.stack([value.float() for value in values.values()]).tolist())) if values else {}


def shrink(images: Tensor) -> Tensor:
    """N x 3 x H x W -> N x d: the colors of each image on a grid of SIDE_PX x SIDE_PX."""
    return F.adaptive_avg_pool2d(images.float(), SIDE_PX).flatten(1)


def find_nearest(images: Tensor, known: Tensor) -> Tensor:
    """N x d and n x d -> N: the mean absolute difference of each image from the nearest one of `known`."""
    return torch.cdist(images, known, p=1).min(dim=1).values / images.shape[1]
