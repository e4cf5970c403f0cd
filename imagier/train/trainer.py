"""The training loop: a recipe yields losses, the loop applies them, hooks watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from typing import Protocol

import torch
from torch.profiler import record_function

from imagier.errors import UserError
from imagier.recipe import Batch, Losses, Position, Recipe, StepContext
from imagier.train.guard import Guard
from imagier.train.phase import Phase, check_phase, name_range
from imagier.train.player import Player
from imagier.train.ranks import LateMax
from imagier.train.runtime import Runtime


class Outcome(IntEnum):
    """Whether a run continues. If ranks disagree, the largest value counts."""

    GO_ON = 0
    SAVE = 1
    """It goes on, but a checkpoint was asked for now."""
    DONE = 2
    INTERRUPTED = 3
    """The run was asked to end before it is done: save and leave quickly."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step."""

    step: int
    """Iterations done."""
    position: Position
    epoch_ended: bool
    outcome: Outcome
    phases: Sequence[Phase]
    """The updates of the iteration, in order."""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.position.epoch

    @property
    def is_last(self) -> bool:
        """Whether the run ends with this step."""
        return self.outcome >= Outcome.DONE


class Hook(Protocol):
    """Watches a run; never steers it."""

    def after_step(self, trainer: Trainer, progress: Progress) -> None: ...

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None: ...


class Stop(Protocol):
    """Decides, from the iterations and epochs done, whether the run continues.

    DONE follows from these alone, whatever else happens, so that all ranks know it at the same time. What else a rank
    asks for counts on all of them one step later.
    """

    def __call__(self, step: int, epoch: int) -> Outcome: ...


Clock = Callable[[str], AbstractContextManager[None]]


def no_clock(part: str) -> AbstractContextManager[None]:
    """The clock of a run that is not timed."""
    return nullcontext()


class Trainer:
    """Applies a recipe's losses to its players."""

    def __init__(
        self,
        recipe: Recipe,
        players: Mapping[str, Player],
        runtime: Runtime,
        *,
        seed: int,
        accumulate: int = 1,
        hooks: Sequence[Hook] = (),
        clock: Clock = no_clock,
        guard: Guard | None = None,
    ) -> None:
        """accumulate: parts of a batch whose gradients are added up. clock: times the parts of an iteration.

        guard: checks every iteration for numbers that are not finite.
        """
        self.recipe = recipe
        self.players = players
        self.runtime = runtime
        self.seed = seed
        self.accumulate = accumulate
        self.hooks = hooks
        self.clock = clock
        self.guard = guard
        self._rng = runtime.generator(seed)
        """The one source of all steps: a graph that draws from it must know it beforehand."""
        self.step = 0
        self.position = Position()
        self.outcome = Outcome.GO_ON
        """The last value of `stop`."""

    def fit(self, stream: Iterable[tuple[Batch, Position]], stop: Stop) -> None:
        """Trains on a stream of batches, each with the position after it, until `stop` ends it.

        NonFinite (guard.py) if numbers are not finite and the guard's policy is not to continue.
        """
        progress = None
        asked = LateMax(self.runtime)
        self.outcome = self._agree(stop, asked)
        batches = iter(stream)
        self.recipe.train()
        while self.outcome < Outcome.DONE:
            with self.clock("data"):
                batch, position = next(batches)
            phases = self.train_step(batch)
            begun, self.position = self.position, position
            self.step += 1
            if self.guard is not None:
                self.guard.check(self.step, begun, batch, phases)
            self.outcome = self._agree(stop, asked)
            progress = Progress(self.step, position, position.epoch > begun.epoch, self.outcome, phases)
            for hook in self.hooks:
                hook.after_step(self, progress)
        self.settle()
        for hook in self.hooks:
            hook.after_fit(self, progress)

    def settle(self) -> None:
        """Lets the guard finish with all iterations so far, before the networks are looked at; raises what `fit` does.

        On all ranks together.
        """
        if self.guard is not None:
            self.guard.settle()

    def _agree(self, stop: Stop, asked: LateMax) -> Outcome:
        own = stop(self.step, self.position.epoch)
        return own if own is Outcome.DONE else Outcome(asked(own))

    def train_step(self, batch: Batch) -> list[Phase]:
        """One iteration; returns its phases, in order.

        With `accumulate` > 1 the batch is split into that many parts, whose gradients are added up; losses are means.
        """
        phases: list[Phase] = []
        for name, losses in self.gradients(batch, self.step, self.position.epoch):
            with self._measure("update", len(phases) + 1, name):
                norm = self.players[name].update()
            phases.append(Phase(name, losses, norm))
        return phases

    def gradients(self, batch: Batch, step: int, epoch: int) -> Iterator[tuple[str, Losses]]:
        """Player and losses of each phase of the iteration after `step` others, once the player has its gradients."""
        self.runtime.seed(self.seed, step)
        ctx = StepContext(step, epoch, self.runtime.reseed(self._rng, self.seed, step), self.accumulate)
        for player in self.players.values():
            player.set_time(epoch, step)
        parts = [self._phases(self.recipe.step(part, ctx)) for part in batch.split(self.accumulate)]
        for number in count(1):
            phase = self._accumulate(number, parts)
            if phase is None:
                return
            yield phase

    def _phases(self, phases: Iterator[tuple[str, Losses]]) -> Iterator[tuple[str, Losses]]:
        """The recipe's phases, each computed in the precision of the run."""
        if not isinstance(phases, Iterator):
            raise self._refuse(f"returned a {type(phases).__name__}", 'write: yield "gen", {"l1": loss}', "wrong-step")
        for number in count(1):
            with self._measure("forward", number), self.runtime.autocast():
                phase = next(phases, None)
            if phase is None:
                return
            if not torch.is_grad_enabled():
                del phases  # leaves the `with`, which would outlast the error
                raise self._refuse("yielded inside torch.no_grad()", "yield after the `with` block", "yield-in-no-grad")
            yield check_phase(phase, self.players.keys(), self._step_name)

    def _accumulate(self, number: int, parts: Sequence[Iterator[tuple[str, Losses]]]) -> tuple[str, Losses] | None:
        """The next phase of all parts of a batch, once its player has their gradients; None if there are no more."""
        player: str | None = None
        found: list[Losses] = []
        for index, part in enumerate(parts):
            name, losses = next(part, (None, {}))
            if index and name != player:
                what = f"phase {number} differs between parts of a batch: {player or 'the end'}, {name or 'the end'}"
                advice = "with trainer.accumulate > 1 all parts must yield the same players in the same order"
                raise self._refuse(what, advice, "phases-differ")
            player = name
            if name is not None:
                found.append(self._backward(number, name, losses, is_last=index == len(parts) - 1))
        return None if player is None else (player, _average_losses(found))

    @property
    def _step_name(self) -> str:
        """Where a mistake in the recipe's step is."""
        return f"{type(self.recipe).__module__}.{type(self.recipe).__qualname__}.step"

    def _refuse(self, what: str, advice: str, code: str) -> UserError:
        return UserError(what, where=self._step_name, advice=advice, code=code)

    def _backward(self, number: int, name: str, losses: Losses, *, is_last: bool) -> Losses:
        """Backpropagates the weighted sum of a player's losses; returns them, detached, with their `total`.

        is_last: of the parts of the batch.
        """
        total = self.recipe.total(losses)
        if not total.requires_grad:
            raise self._refuse(
                f"the losses of {name} depend on no weights", "compute them with gradients", "no-gradient"
            )
        with self._measure("backward", number, name):
            self.players[name].backward(total / self.accumulate, is_last=is_last)
        return {name: loss.detach() for name, loss in {**losses, "total": total}.items()}

    def _measure(self, part: str, number: int, player: str = "") -> AbstractContextManager[None]:
        """Times a part of the iteration's phase `number`, and names it in a profile if one is on."""
        if not torch.autograd._profiler_enabled():
            return self.clock(part)
        return _both(record_function(name_range(number, part, player)), self.clock(part))


@contextmanager
def _both(first: AbstractContextManager[object], second: AbstractContextManager[object]) -> Iterator[None]:
    with first, second:
        yield


def _average_losses(parts: Sequence[Losses]) -> Losses:
    """The mean of each loss over the parts of a batch that have it."""
    if len(parts) == 1:
        return parts[0]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.stack([part[name] for part in parts if name in part]).mean(dim=0) for name in names}
