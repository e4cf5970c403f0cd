"""Copies to the device begin one batch ahead, and nobody uses one that has not arrived."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from counted import Counted, content, loader, places
from torch import Tensor

from imagier.data.loading.loader import one_ahead
from imagier.recipe import Position
from imagier.train.runtime import Runtime


class Device:
    """A device as seen from the loader: tensors that were sent to it hold rubbish until one has waited for them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
        number = sum(event.startswith("begin") for event in self.events)
        self.events.append(f"begin {number}")
        copies = {name: torch.full_like(tensor, -1) for name, tensor in tensors.items()}

        def arrived() -> dict[str, Tensor]:
            self.events.append(f"wait {number}")
            for name, copy in copies.items():
                copy.copy_(tensors[name])
            return copies

        return arrived


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_copy_of_the_next_batch_begins_before_this_one_is_used(num_workers: int) -> None:
    device = Device()
    made = loader(Counted(6), 2, copier=device, num_workers=num_workers)
    for number, batch in enumerate(made.once()):
        device.events.append(f"use {number}")
        assert places(batch) == [(0, 2 * number), (0, 2 * number + 1)]
    assert device.events == [
        *("begin 0", "begin 1", "wait 0", "use 0"),
        *("begin 2", "wait 1", "use 1"),
        *("wait 2", "use 2"),
    ]


def test_batches_and_positions_are_those_of_a_loader_that_does_not_copy_ahead() -> None:
    plain = loader(Counted(7), 2, shuffle=True).stream(Position(1, 2))
    ahead = loader(Counted(7), 2, shuffle=True, copier=Device()).stream(Position(1, 2))
    for _ in range(9):
        (batch, position), (other, at) = next(plain), next(ahead)
        assert content(batch) == content(other)
        assert position == at


def test_a_batch_is_finished_after_it_has_arrived() -> None:
    made = loader(Counted(4), 2, copier=Device())
    made.finish = lambda batch: batch.replace(double=2 * batch["at"])
    for batch in [*made.once(), made.some(2)]:
        assert torch.equal(batch["double"], 2 * batch["at"])
        assert batch["at"].min() >= 0


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_ahead_changes_nothing_but_when_items_are_taken(count: int) -> None:
    taken: list[int] = []
    items = one_ahead(taken.append(item) or item for item in range(count))
    for expected in range(count):
        assert next(items) == expected
        assert taken == list(range(min(expected + 2, count)))
    assert next(items, None) is None


def test_on_the_cpu_nothing_is_copied_ahead() -> None:
    assert Runtime(torch.device("cpu")).make_copy_stream() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_side_stream_brings_what_it_was_given_while_the_device_is_busy() -> None:
    runtime = Runtime(torch.device("cuda", 0))
    copier = runtime.make_copy_stream()
    assert copier is not None
    pinned = {"x": torch.arange(2**22).pin_memory()}
    busy = torch.randn(4096, 4096, device=runtime.device)
    for round in range(20):
        arrived = copier({"x": pinned["x"]})
        busy = (busy @ busy).clamp(-1, 1)
        copy = arrived()["x"]
        assert int((copy - torch.arange(2**22, device=runtime.device)).abs().sum()) == 0, round
