"""Losses and gradients that are not finite: found without waiting for the device, recorded, handled alike on all ranks.

Such an update is not applied (train/player.py). Gradients are averaged over the ranks before, so a bad number on one
rank is one on all ranks, and all handle it at the same step.

A finite gradient may still make weights that are not, or moments: these are looked at now and then, after every bad
iteration, and before every save. No later iteration could mend them.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from imagier.errors import RunError
from imagier.recipe import Batch, Position
from imagier.train.finite import find_nonfinite, is_finite, name_moments
from imagier.train.phase import Phase, label_phases
from imagier.train.player import Player
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

Policy = Literal["skip", "rollback", "stop"]

HISTORY = 100
"""Iterations whose losses and gradient norms are kept for a report."""

MOST_IN_A_ROW = 20
"""More bad iterations of a player than this, one after the other, are no accident; a loss scaler may need 16 to find
its scale."""

STATE_EVERY = 100
"""Iterations between two looks at all weights, moments and buffers, for which the process waits for the device."""

MOST_REPORTS = 3
"""Later bad iterations of a run are counted, not recorded."""


class NonFinite(RunError):
    """A loss or gradient is not finite, and the policy is not to continue, or there were too many; or a weight is."""


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
    players: Sequence[str]
    """The player of each of its phases, in order."""
    norms: Callable[[], list[float]]
    """The gradient norm of each phase; waits until they are known."""


class Recorder(Protocol):
    """Records a bad iteration; returns in a few words what was found, and where the record is."""

    def __call__(self, bad: Iteration, history: Mapping[int, Mapping[str, float]]) -> str: ...


class Guard:
    """Checks the gradient norms of every iteration: one iteration late on a device that would have to be waited for."""

    def __init__(
        self,
        players: Mapping[str, Player],
        runtime: Runtime,
        *,
        policy: Policy = "skip",
        record: Recorder | None = None,
    ) -> None:
        """policy: skip continues; rollback and stop raise NonFinite at once. record: called for the first few."""
        self.players = players
        self.runtime = runtime
        self.policy = policy
        self.record = record
        self.bad = 0
        """Bad iterations so far."""
        self.is_in_streak = False
        """Whether the last iteration that was checked was bad: what it left may be worth nothing."""
        self._in_a_row: Counter[str] = Counter()
        """By player: its last iterations, as far as they were all bad."""
        self._waiting: deque[Iteration] = deque()
        self._history: deque[_Values] = deque(maxlen=HISTORY)
        self._buffers = [buffer for _, buffer in self._name_buffers()]
        self._before = self._copy_buffers()
        self._spare = self._copy_buffers()
        self._masks = {name for name, buffer in self._name_buffers() if not is_finite([buffer])}
        """Buffers that are not finite by design, as masks of attention are."""

    def check(self, step: int, position: Position, batch: Batch, phases: Sequence[Phase]) -> None:
        """After every iteration: `step` iterations are done with it, its batch began at `position`.

        NonFinite if the policy does not continue, if too many iterations of a player were bad one after the other, or
        if the state is bad.
        """
        players, norms = [phase.player for phase in phases], _no_norms
        if phases:
            on_device = torch.stack([phase.gradient_norm for phase in phases])
            norms = self.runtime.to_host_async(on_device)
            self._remember(step, phases, on_device)
        self._waiting.append(Iteration(step, position, batch, self._before, players, norms))
        while len(self._waiting) > self.runtime.is_asynchronous:
            self._judge(self._waiting.popleft())
        # At most one iteration waits, and needs its copy: two copies take turns.
        self._before, self._spare = self._spare, self._before
        copy_tensors(self._before, self._buffers)
        if step % STATE_EVERY == 0:
            self.check_state(step)

    def check_state(self, step: int) -> None:
        """NonFinite, on all ranks, if a weight, moment, average or buffer is not finite; waits for the device."""
        found = find_nonfinite(self._name_state())
        if self.runtime.all_reduce_max(found is not None):
            where = found or "on another rank"
            what = "an update with a finite gradient made it so; is the learning rate too high?"
            raise NonFinite(f"iteration {step:,}: the state is not finite any more ({where}): {what}")

    def settle(self) -> None:
        """Checks what has not been checked yet, which waits for the device; raises what `check` does."""
        while self._waiting:
            self._judge(self._waiting.popleft())

    def restart(self) -> None:
        """Starts again after the networks were given other weights."""
        self._waiting.clear()
        self._in_a_row.clear()
        self.is_in_streak = False
        self._before = self._copy_buffers()

    def _judge(self, iteration: Iteration) -> None:
        norms = iteration.norms()
        bad = [index for index, norm in enumerate(norms) if not math.isfinite(norm)]
        players = {iteration.players[index] for index in bad}
        for player in set(iteration.players):
            self._in_a_row[player] = self._in_a_row[player] + 1 if player in players else 0
        if not bad:
            self.is_in_streak = False
            return
        is_hopeless = max(self._in_a_row[player] for player in players) > MOST_IN_A_ROW
        # A loss scaler overflows now and then on its way to the right scale; that alone is nothing to report. It scales
        # gradients: a loss that is not finite is none of its doing.
        overflows = [self.players[iteration.players[i]].scaler is not None and norms[i] == math.inf for i in bad]
        if all(overflows) and not is_hopeless:
            if not is_finite(buffer for name, buffer in self._name_buffers() if name not in self._masks):
                self._restore(iteration.buffers)
            return
        self.bad += 1
        self.is_in_streak = True
        self._restore(iteration.buffers)
        labels = label_phases(iteration.players)
        where = " and ".join(labels[index] for index in bad)
        what = f"iteration {iteration.step:,}: not applied, the loss or gradient of {where} is not finite"
        if self.record is not None and self.bad <= MOST_REPORTS:
            what += f"; {self.record(iteration, self.history())}"
        if self.policy != "skip":
            raise NonFinite(what)
        if is_hopeless:
            raise NonFinite(f"{what}; nor were the {MOST_IN_A_ROW} iterations before it: the run cannot continue")
        if self.runtime.is_main:  # all ranks see the same
            logger.warning(what)
        self.check_state(iteration.step)

    def history(self) -> dict[int, dict[str, float]]:
        """Losses and gradient norms of the last iterations, by step and name."""
        return {values.step: values.read() for values in self._history}

    def _remember(self, step: int, phases: Sequence[Phase], norms: Tensor) -> None:
        losses = torch.stack([loss.float() for phase in phases for loss in phase.losses.values()])
        names = [(phase.player, list(phase.losses)) for phase in phases]
        self._history.append(_Values(step, names, torch.cat([losses, norms])))

    def _name_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """All buffers by a name for people, those of averages too."""
        for label, network in self._label_networks():
            yield from ((f"{label}.{name}", buffer) for name, buffer in network.named_buffers())

    def _name_state(self) -> dict[str, Tensor]:
        """Everything that should be finite, by a name for people."""
        state = {name: buffer for name, buffer in self._name_buffers() if name not in self._masks}
        for label, network in self._label_networks():
            state |= {f"{label}.{name}": parameter for name, parameter in network.named_parameters()}
        for player, of in self.players.items():
            state |= {f"{player}_opt: {key}": value for key, value in name_moments(of.network, of.optimizer).items()}
        return state

    def _label_networks(self) -> Iterator[tuple[str, nn.Module]]:
        for player, of in self.players.items():
            for kind, network in of.named_networks().items():
                yield player if kind == "network" else f"{kind} of {player}", network

    def _copy_buffers(self) -> list[Tensor]:
        return [buffer.clone() for buffer in self._buffers]

    def _restore(self, buffers: list[Tensor]) -> None:
        """Statistics that were measured on bad activations would stay bad for ever."""
        copy_tensors(self._buffers, buffers)
        copy_tensors(self._before, self._buffers)
        copy_tensors(self._spare, self._buffers)


def copy_tensors(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copies tensors into others, all at once; there may be none."""
    if targets:
        torch._foreach_copy_(targets, sources)


@dataclass(frozen=True)
class _Values:
    """All losses of an iteration, then the gradient norms of its phases, on the device."""

    step: int
    names: list[tuple[str, list[str]]]
    """Of each phase its player and the names of its losses."""
    values: Tensor

    def read(self) -> dict[str, float]:
        """By name, "gen/total" or "gen/gradient_norm"; waits for the device."""
        labels = label_phases([player for player, _ in self.names])
        losses = [f"{label}/{loss}" for label, (_, names) in zip(labels, self.names) for loss in names]
        return dict(zip([*losses, *(f"{label}/gradient_norm" for label in labels)], self.values.tolist()))


def _no_norms() -> list[float]:
    """Those of an iteration without a phase."""
    return []
