"""The files of several roots as one list: which file stands at a place, and how a file is drawn."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from imagier.data.sources.keys import Keys
from imagier.data.sources.source import Source, unique_names


class Items:
    """Files in the order of the roots and of the names in them; forked processes may look at them in place."""

    def __init__(
        self, sources: Sequence[Source], keys: Sequence[Sequence[str]], root_weights: Sequence[float] | None = None
    ) -> None:
        """keys: those of each source. root_weights: how often a file of each is drawn; None draws all files alike."""
        self.sources = sources
        self.keys = [Keys(of_source) for of_source in keys]
        self.starts = list(accumulate(map(len, self.keys), initial=0))
        self.odds = None if root_weights is None else list(accumulate(root_weights))
        self.names = self.keys[0] if len(keys) == 1 else Keys(unique_names(key for each in keys for key in each))
        """One for every file, none twice."""

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, place: int) -> tuple[Source, str]:
        number = bisect_right(self.starts, place) - 1
        return self.sources[number], self.keys[number][place - self.starts[number]]

    def draw(self, rng: random.Random) -> int:
        """A random place: all alike, or first a root by its weight, and then all places of it alike."""
        if self.odds is None:
            return rng.choice(range(len(self)))
        number = min(bisect_right(self.odds, rng.random() * self.odds[-1]), len(self.odds) - 1)
        return rng.choice(range(self.starts[number], self.starts[number + 1]))


def blocks(sources: Sequence[Source], kind: str, length: int) -> list[int]:
    """Lengths of the runs of files of a type that lie together, over all sources; where none do, `length`, of all."""
    runs = [run for source in sources for run in source.shards(kind)]
    return runs if len(runs) > len(sources) else [length]
