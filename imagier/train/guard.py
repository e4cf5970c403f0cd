"""Numbers that go bad: found without waiting for the device, recorded, and answered alike on all ranks.

A gradient that is not finite never moves weights: the update does not take place (train/player.py). Gradients are
averaged over the ranks before, so a bad number on one rank is one on all, and all answer it at the same step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from imagier.errors import RunError
from imagier.recipe import Batch, Losses, Position
from imagier.train.player import Player
from imagier.train.runtime import Runtime

Policy = Literal["skip", "rollback", "stop"]

HISTORY = 100
"""Iterations whose losses and gradient norms are kept for a report."""

MOST_IN_A_ROW = 20
"""More bad iterations than this one after the other are no accident; a loss scaler may need 16 to find its scale."""

MOST_REPORTS = 3
"""Later bad iterations of a run are counted, not recorded."""


class NonFinite(RunError):
    """Gradients that are not finite, and a policy that does not go on with what it has."""


@dataclass(frozen=True)
class Iteration:
    """What is kept of an iteration until it is known to be good."""

    step: int
    """Iterations done with it."""
    position: Position
    """Where in the data its batch begins."""
    batch: Batch
    buffers: list[Tensor]
    """Those of all networks as they were before it."""
    norms: Callable[[], list[float]]
    """Player.gradient_norm of every player; waits until they are known."""


class Recorder(Protocol):
    """Writes down what a bad iteration was made of; returns in a few words what was found and where it is."""

    def __call__(self, bad: Iteration, history: Mapping[int, Mapping[str, float]]) -> str: ...


class Guard:
    """Looks at the gradient norms of every iteration, one iteration late where looking at once would mean waiting."""

    def __init__(
        self,
        players: Mapping[str, Player],
        runtime: Runtime,
        *,
        policy: Policy = "skip",
        record: Recorder | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        """policy: skip goes on; rollback and stop raise NonFinite at once. record: called for the first few."""
        self.players = players
        self.runtime = runtime
        self.policy = policy
        self.record = record
        self.say = say
        self.bad = 0
        """Bad iterations so far."""
        self._in_a_row = 0
        self._waiting: deque[Iteration] = deque()
        self._history: deque[tuple[int, list[str], Tensor]] = deque(maxlen=HISTORY)
        self._buffers = [buffer for network in self._networks() for buffer in network.buffers()]
        self._before = self._copied()
        self._spare = self._copied()

    def check(self, step: int, position: Position, batch: Batch, losses: Mapping[str, Losses]) -> None:
        """After every iteration: `step` iterations are done with it, its batch began at `position`.

        NonFinite if the policy does not go on, or if too many iterations were bad one after the other.
        """
        norms = torch.stack([_norm(player) for player in self.players.values()])
        self._remember(step, losses, norms)
        self._waiting.append(Iteration(step, position, batch, self._before, self.runtime.to_host_async(norms)))
        while len(self._waiting) > self.runtime.is_asynchronous:
            self._judge(self._waiting.popleft())
        # At most one iteration waits, and needs its copy: two copies take turns.
        self._before, self._spare = self._spare, self._before
        copy(self._before, self._buffers)

    def settle(self) -> None:
        """Looks at what has not been looked at yet, which waits for the device; raises what `check` does."""
        while self._waiting:
            self._judge(self._waiting.popleft())

    def restart(self) -> None:
        """Begins again after the networks got other weights."""
        self._waiting.clear()
        self._in_a_row = 0
        self._before = self._copied()

    def _judge(self, iteration: Iteration) -> None:
        named = dict(zip(self.players, iteration.norms()))
        bad = [name for name, norm in named.items() if not math.isfinite(norm)]
        if not bad:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        # A loss scaler overflows now and then on its way to the right scale; that alone is nothing to tell. It scales
        # gradients: a loss that is not finite is none of its doing.
        expected = all(self.players[name].scaler is not None and named[name] == math.inf for name in bad)
        if expected and self._in_a_row <= MOST_IN_A_ROW:
            return
        self.bad += 1
        self._restore(iteration.buffers)
        what = f"iteration {iteration.step:,}: not applied, the loss or gradient of {' and '.join(bad)} is not finite"
        if self.record is not None and self.bad <= MOST_REPORTS:
            what += f"; {self.record(iteration, self.history())}"
        if self.policy != "skip":
            raise NonFinite(what)
        if self._in_a_row > MOST_IN_A_ROW:
            raise NonFinite(f"{what}; and so were the {MOST_IN_A_ROW} before it: the run cannot go on")
        self.say(what)

    def history(self) -> dict[int, dict[str, float]]:
        """Losses and gradient norms of the last iterations, by step and name."""
        return {step: dict(zip(names, values.tolist())) for step, names, values in self._history}

    def _remember(self, step: int, losses: Mapping[str, Losses], norms: Tensor) -> None:
        named = {f"{player}/{name}": loss for player, group in losses.items() for name, loss in group.items()}
        names = [*named, *(f"{name}/gradient_norm" for name in self.players)]
        values = torch.stack([loss.float() for loss in named.values()])
        self._history.append((step, names, torch.cat([values, norms])))

    def _networks(self) -> list[nn.Module]:
        averages = [player.average.network for player in self.players.values() if player.average is not None]
        return [*(player.network for player in self.players.values()), *averages]

    def _copied(self) -> list[Tensor]:
        return [buffer.clone() for buffer in self._buffers]

    def _restore(self, buffers: list[Tensor]) -> None:
        """Statistics that were measured on bad activations would stay bad for ever."""
        copy(self._buffers, buffers)
        copy(self._before, self._buffers)
        copy(self._spare, self._buffers)


def copy(to: list[Tensor], what: list[Tensor]) -> None:
    """Copies buffers into others, all at once; there may be none."""
    if to:
        torch._foreach_copy_(to, what)


def _norm(player: Player) -> Tensor:
    assert player.gradient_norm is not None, "a player is updated in every iteration"
    return player.gradient_norm
