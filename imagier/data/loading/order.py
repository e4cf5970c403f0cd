"""In which order samples come, and which rank takes which: functions of numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from imagier.data.dataset import Key
from imagier.recipe import Position

Order = Callable[[int], np.ndarray]
"""The indices of all samples, in the order of an epoch."""

WINDOW_BLOCKS = 8
"""Blocks whose samples are mixed: more mix better, but then more of them are open at a time."""


def shuffle_indices(length: int, seed: int, epoch: int) -> np.ndarray:
    """All indices below `length` in a random order."""
    return np.random.default_rng((seed, epoch)).permutation(length)


def shuffle_in_blocks(blocks: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """All indices in a random order that stays in a few blocks at a time.

    blocks: lengths of runs of samples that lie together (shards). The blocks come in a random order; then the samples
    of `WINDOW_BLOCKS` neighbors are mixed.
    """
    rng = np.random.default_rng((seed, epoch))
    runs = _runs(blocks)
    turns = rng.permutation(len(runs))
    windows = [turns[at : at + WINDOW_BLOCKS] for at in range(0, len(turns), WINDOW_BLOCKS)]
    return np.concatenate([rng.permutation(np.concatenate([runs[block] for block in window])) for window in windows])


def plan(
    start: Position, order: Order, *, batch_size: int, rank: int, world: int
) -> Iterator[tuple[list[Key], Position]]:
    """The keys of a rank's every batch, without end, and the position after it. batch_size: samples a rank.

    The orders of all epochs, one after the other, are cut into steps of `batch_size * world` samples, and each rank
    takes its part of a step. So every sample of an epoch is seen exactly once, and a step may reach into the next one.
    """
    epoch, at = start.epoch, start.samples
    indices = order(epoch)
    total = batch_size * world
    while True:
        step: list[Key] = []
        while len(step) < total:
            taken = indices[at : at + total - len(step)]
            step += [(epoch, index) for index in taken.tolist()]
            at += len(taken)
            if at >= len(indices):
                epoch, at = epoch + 1, 0
                indices = order(epoch)
        yield step[rank * batch_size : (rank + 1) * batch_size], Position(epoch, at)


def share(length: int, blocks: Sequence[int] | None, rank: int, world: int) -> list[range]:
    """The indices that a rank takes of a set that is read in order: all ranks together take each exactly once.

    Without blocks the ranks take turns. Else a rank takes whole ones, and the largest are dealt out first, each to the
    rank that has least, so that all have about as much.
    """
    if blocks is None:
        return [range(rank, length, world)]
    loads = [0] * world
    mine = []
    for block in sorted(range(len(blocks)), key=lambda block: -blocks[block]):
        least = loads.index(min(loads))
        loads[least] += blocks[block]
        if least == rank:
            mine.append(block)
    runs = _runs(blocks)
    return [runs[block] for block in sorted(mine)]


def _runs(blocks: Sequence[int]) -> list[range]:
    """The indices of each block."""
    ends = np.cumsum(blocks).tolist()
    return [range(end - length, end) for length, end in zip(blocks, ends)]
