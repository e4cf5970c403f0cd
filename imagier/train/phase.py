"""A phase of an iteration: one update of one player."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from imagier.errors import UserError
from imagier.recipe import Losses


@dataclass(frozen=True)
class Phase:
    """One update of one player. An iteration may hold none, one or several of the same player."""

    player: str
    losses: Losses
    """On the device, unweighted but for the `total`; means over the parts of a batch."""
    gradient_norm: Tensor
    """What `Player.update` returned, a scalar on the device."""


def check_phase(phase: Any, players: Collection[str], where: str) -> tuple[str, Losses]:
    """What the `step` of a recipe yielded. UserError unless it is a player, and its losses as scalar tensors by name.

    where: the step, for the error.
    """
    if not (isinstance(phase, tuple) and len(phase) == 2 and isinstance(phase[1], Mapping) and phase[1]):
        what = f"yielded {_describe(phase)}, not a player and its losses"
        raise UserError(what, where=where, advice='write: yield "gen", {"l1": loss}', code="wrong-phase")
    player, losses = phase
    if player not in players:
        advice = f"the players are {', '.join(players)}"
        raise UserError(f"yielded the losses of {player!r}", where=where, advice=advice, code="unknown-player")
    for name, loss in losses.items():
        if not (isinstance(loss, Tensor) and loss.dim() == 0):
            what = f"yielded {_describe(loss)} as the loss {name!r} of {player}"
            raise UserError(what, where=where, advice="a loss is a tensor with one value", code="wrong-loss")
    return player, losses


def _describe(value: Any) -> str:
    """The type of a value, with the shape of a tensor."""
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


PROFILE_PREFIX = "phase "
"""What the names of all ranges begin with that a training adds to a profile."""


def name_range(number: int, part: str, player: str = "") -> str:
    """The name of a part of an iteration's phase `number` in a profile: "phase 1: forward", "phase 1: backward dis".

    A forward pass has no player's name: a recipe says whose losses it computed only once they are there. The one with
    the highest number is what the recipe does after the last phase.
    """
    return f"{PROFILE_PREFIX}{number}: {part} {player}".rstrip()


def label_phases(players: Sequence[str]) -> list[str]:
    """Names of an iteration's phases for people: "gen", or "dis (update 1 of 2)" where a player comes several times."""
    totals, seen = Counter(players), Counter[str]()
    labels = []
    for player in players:
        seen[player] += 1
        several = totals[player] > 1
        labels.append(f"{player} (update {seen[player]} of {totals[player]})" if several else player)
    return labels
