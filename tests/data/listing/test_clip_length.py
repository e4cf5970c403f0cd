"""The length of clips as a function of the epoch, against the steps in which the reference's trainer changed it."""

from __future__ import annotations

import pytest

from imagier.data.listing.clip_length import ClipLength


def step_by_step(initial: int, most: int, first: int, every: int, epochs: int) -> list[int]:
    """What the reference did at the start of every epoch (its trainer keeps the length from epoch to epoch)."""
    length, lengths = 1, []
    for epoch in range(epochs):
        if epoch == first:
            length = initial
        elif epoch > first:
            target = min(initial * 2 ** ((epoch - first) // every), most)
            length = max(length, target)
        lengths.append(length)
    return lengths


@pytest.mark.parametrize("initial", [1, 3, 4])
@pytest.mark.parametrize("most", [4, 16, 100])
@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("every", [1, 4, 40])
def test_the_length_is_that_of_a_run_that_was_never_stopped(initial: int, most: int, first: int, every: int) -> None:
    growth = ClipLength(initial=initial, most=most, single_frame_epoch=first, num_epochs_temporal_step=every)
    assert [growth.frames(epoch) for epoch in range(60)] == step_by_step(initial, most, first, every, 60)


def test_without_growth_the_length_stays() -> None:
    growth = ClipLength(initial=4, most=16)
    assert {growth.frames(epoch) for epoch in (0, 1, 10**9)} == {4}


def test_the_last_epoch_that_there_can_be_has_the_most() -> None:
    assert ClipLength(initial=4, most=16, num_epochs_temporal_step=1).frames(10**9) == 16
