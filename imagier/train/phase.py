"""A phase of an iteration: one update of one player."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from imagier.recipe import Losses


@dataclass(frozen=True)
class Phase:
    """One update of one player. An iteration may hold none, one or several of the same player."""

    player: str
    losses: Losses
    """On the device, unweighted but for the `total`; means over the parts of a batch."""
    gradient_norm: Tensor
    """What `Player.update` returned, a scalar on the device."""


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
