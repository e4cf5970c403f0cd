"""Gradients travel while backward computes, and arrive as the mean over ranks, whatever each rank has of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bucket_ranks
import pytest
import torch
from bucket_ranks import LAYERS, WIDTH
from test_ranks import torchrun
from torch import Tensor

from imagier.train.runtime import Runtime


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what two ranks wrote."""
    path = tmp_path_factory.mktemp("buckets")
    torchrun(Path(bucket_ranks.__file__), str(path))
    return path


def events_of(folder: Path, name: str) -> list[list[Any]]:
    """Of both ranks."""
    return [json.loads((folder / f"events{rank}.json").read_text())[name] for rank in (0, 1)]


def test_gradients_of_the_last_layers_leave_before_backward_ends(folder: Path) -> None:
    """The first message has the loss, too; the last one is of a parameter without a gradient."""
    layer = WIDTH * WIDTH
    sent = [f"send {layer + 1}", *[f"send {layer}"] * (LAYERS - 1)]
    for events in events_of(folder, "update_once"):
        assert events == [*sent[:-1], "last gradient", sent[-1], "end of backward", "send 3"]


def test_only_the_last_part_of_a_batch_sends_anything(folder: Path) -> None:
    for events in events_of(folder, "accumulate"):
        assert events[:2] == ["part", "part"]
        assert sum(event.startswith("send") for event in events) == LAYERS + 1


def test_messages_are_freed_one_by_one(folder: Path) -> None:
    """The transport may hold one or two for a moment."""
    for counts in events_of(folder, "count_messages"):
        assert len(counts) == LAYERS + 1 and counts[0] >= LAYERS and counts[-1] <= 3


def test_gradients_are_means_where_ranks_have_different_ones_in_another_order(folder: Path) -> None:
    one, other = (torch.load(folder / f"orders{rank}.pt", weights_only=True) for rank in (0, 1))

    def mean(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        found = [x for x in (a, b) if x is not None]
        return sum(found[1:], found[0]) / 2 if found else None

    for a, b, of_one, of_other in zip(one["own"], other["own"], one["mean"], other["mean"], strict=True):
        expected = mean(a, b)
        if expected is None:
            assert of_one is None and of_other is None, "of the parameter that no rank uses"
        else:
            assert torch.equal(of_one, expected) and torch.equal(of_other, expected)
    assert sum(a is None for a in one["own"]) == 2 and sum(b is None for b in other["own"]) == 3
    assert torch.equal(one["loss"], (one["own_loss"] + other["own_loss"]) / 2)
    assert not torch.equal(one["loss"], one["own_loss"]), "that of the rank, which is logged, stays"


def test_a_layer_that_is_freed_later_is_averaged_from_then_on(folder: Path) -> None:
    found = [torch.load(folder / f"freed{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*found))
    alone: Any = bucket_ranks.player_of(Runtime(torch.device("cpu")))
    for number in range(3):
        alone.network.layers[2].requires_grad_(number > 0)
        x = torch.cat([bucket_ranks.x_of(rank, number) for rank in (0, 1)])
        alone.backward(alone.network(x, list(range(LAYERS))))
        alone.update()
    for a, expected in zip(found[0], alone.network.parameters()):
        torch.testing.assert_close(a, expected.detach())
