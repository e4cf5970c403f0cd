"""Who gets which samples, and when: orders that stay in a few blocks, and shares of whole ones."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from imagier.data.loading.order import WINDOW_BLOCKS, plan, share, shuffle_in_blocks
from imagier.recipe import Position

UNEVEN = [5, 1, 30, 7, 7, 2, 19, 11, 4, 23, 8, 8, 3, 40, 6, 1, 9, 12, 10, 2]


def block_of(blocks: list[int]) -> np.ndarray:
    """The block of each index."""
    return np.repeat(np.arange(len(blocks)), blocks)


@pytest.mark.parametrize("blocks", [[1], [4, 4], UNEVEN, [1] * 50])
def test_an_order_in_blocks_has_every_sample_once(blocks: list[int]) -> None:
    order = shuffle_in_blocks(blocks, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(sum(blocks)))


def test_an_order_in_blocks_is_a_function_of_the_seed_and_the_epoch() -> None:
    orders = {(s, e): tuple(shuffle_in_blocks(UNEVEN, s, e).tolist()) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert tuple(shuffle_in_blocks(UNEVEN, 2, 1).tolist()) == orders[2, 1]


def test_an_order_in_blocks_is_done_with_some_before_it_opens_the_next() -> None:
    """At any time at most `WINDOW_BLOCKS` have been begun and not ended; and neighbors in the order are mixed."""
    blocks = block_of(UNEVEN)
    first_blocks = set()
    for epoch in range(5):
        order = blocks[shuffle_in_blocks(UNEVEN, seed=0, epoch=epoch)].tolist()
        first = {block: order.index(block) for block in range(len(UNEVEN))}
        last = {block: len(order) - 1 - order[::-1].index(block) for block in range(len(UNEVEN))}
        for at in range(len(order)):
            assert sum(first[block] <= at <= last[block] for block in first) <= WINDOW_BLOCKS
        assert sum(one != other for one, other in pairwise(order)) > len(order) / 2
        first_blocks |= set(order[:20])
    assert len(first_blocks) > WINDOW_BLOCKS, "the blocks themselves are shuffled"


def test_one_block_is_shuffled_as_a_whole() -> None:
    order = shuffle_in_blocks([1000], seed=0, epoch=0)
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("blocks", [[3], [5, 5, 5], UNEVEN, [100, 1, 1, 1]])
def test_a_share_has_whole_blocks_in_order_and_all_shares_together_everything_once(
    blocks: list[int], world: int
) -> None:
    whole = {tuple(np.flatnonzero(block_of(blocks) == block)) for block in range(len(blocks))}
    shares = [share(sum(blocks), blocks, rank, world) for rank in range(world)]
    assert {tuple(run) for runs in shares for run in runs} == whole
    assert sum(len(runs) for runs in shares) == len(blocks)
    for runs in shares:
        assert [run.start for run in runs] == sorted(run.start for run in runs)


def loads(blocks: list[int], world: int) -> list[int]:
    """How many samples each rank takes, the least first."""
    return sorted(sum(map(len, share(sum(blocks), blocks, rank, world))) for rank in range(world))


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([1, 1, 1, 1, 4], [4, 4]),  # dealt out as they come: [2, 6]
        ([5, 5, 4, 4, 3, 3, 3], [8, 8, 11]),  # Graham 1969, the worst that largest first can do: [9, 9, 9] is possible
        (UNEVEN, [104, 104]),  # as they come: [103, 105]
        (UNEVEN, [69, 69, 70]),  # [64, 66, 78]
        (UNEVEN, [52, 52, 52, 52]),  # [46, 46, 47, 69]
        ([7], [0, 0, 7]),
    ],
)
def test_largest_blocks_are_dealt_out_first_whatever_their_order(blocks: list[int], expected: list[int]) -> None:
    """As they come, the small ones leave no room for a large one at the end; the smallest first are worse still."""
    for seed in range(5):
        assert loads(np.random.default_rng(seed).permutation(blocks).tolist(), len(expected)) == expected


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_plan_in_blocks_goes_on_from_any_position(world: int) -> None:
    def steps(start: Position) -> list:
        by_rank = [
            plan(start, lambda epoch: shuffle_in_blocks(UNEVEN, 5, epoch), batch_size=3, rank=rank, world=world)
            for rank in range(world)
        ]
        return [[next(of_rank) for of_rank in by_rank] for _ in range(2 * sum(UNEVEN) // (3 * world))]

    whole = steps(Position())
    for done in range(1, len(whole), 5):
        (position,) = {position for _, position in whole[done - 1]}
        rest = steps(position)
        assert rest[: len(whole) - done] == whole[done:]
    seen = [key for step in whole for keys, _ in step for key in keys]
    assert sorted(index for epoch, index in seen if epoch == 0) == list(range(sum(UNEVEN)))


def test_a_position_past_the_end_of_a_set_that_shrank_begins_the_next_epoch() -> None:
    ((keys, position),) = islice(plan(Position(3, 99), lambda _: np.arange(4), batch_size=3, rank=0, world=1), 1)
    assert keys == [(4, 0), (4, 1), (4, 2)]
    assert position == Position(4, 3)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_without_blocks_the_ranks_take_turns(world: int) -> None:
    shares = [[i for run in share(7, None, rank, world) for i in run] for rank in range(world)]
    assert [shares[i % world][i // world] for i in range(7)] == list(range(7))
    assert sum(map(len, shares)) == 7
