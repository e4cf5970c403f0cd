"""Copies of a run's state: what torch.save would write, as it was when it was taken."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from test_trainer import CPU, Line, data, trainer
from torch import Tensor, nn

from imagier.nn.average import ModelAverage
from imagier.train.checkpoint import build_state
from imagier.train.compare import list_leaves
from imagier.train.snapshot import Snapshot, count_bytes
from imagier.train.trainer import Trainer


def saved(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def adam(seed: int = 0) -> Trainer:
    recipe = Line()
    torch.manual_seed(seed)
    recipe.gen = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    run = trainer(recipe)
    for player in run.players.values():
        player.optimizer = torch.optim.Adam(player.params, fused=True)
    run.players["gen"].average = ModelAverage(recipe.gen, start_iteration=0)
    return run


def step(run: Trainer) -> None:
    x = data()["x"]
    for player in run.players.values():
        player.network(x).square().mean().backward()
        player.update()


def test_a_copy_is_written_as_the_state_itself_was_byte_for_byte_whatever_comes_after() -> None:
    run = adam()
    snapshot = Snapshot(CPU)
    for _ in range(3):
        step(run)
        extras = {"log": {"tags": ["a"], "sums": torch.ones(3), "none": None}, "pair": (1, torch.ones(2))}
        whole = saved(build_state(run, extras))
        copied, complete = snapshot.take(build_state(run, extras))
        step(run)
        complete()
        assert saved(copied) == whole
        assert saved(build_state(run, extras)) != whole


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param(lambda x: {"a": x, "b": x}, id="the same twice"),
        pytest.param(lambda x: {"a": x[0], "b": x[:, 1]}, id="parts of one"),
        pytest.param(lambda x: {"a": x.t(), "b": x[::2, 1:]}, id="strides"),
        pytest.param(lambda x: {"a": x.to(torch.bfloat16), "b": x.half(), "c": x.bool()}, id="types"),
        pytest.param(lambda x: {"a": x[None, None].contiguous(memory_format=torch.channels_last)}, id="channels last"),
        pytest.param(lambda x: {"a": torch.empty(0), "b": torch.empty(0, 3), "c": torch.tensor(3)}, id="empty"),
    ],
)
def test_tensors_lie_in_the_copy_as_they_did(tensors: Any) -> None:
    state = tensors(torch.arange(12.0).view(3, 4))
    copied, _ = Snapshot(CPU).take(state)
    assert saved(copied) == saved(state)
    for name, tensor in state.items():
        assert torch.equal(copied[name], tensor)
        assert copied[name].stride() == tensor.stride()
        assert copied[name].data_ptr() != tensor.data_ptr() or not tensor.numel()


def pieces(state: Any) -> list[int]:
    return sorted(tensor.data_ptr() for tensor in state.values() if isinstance(tensor, Tensor))


def test_memory_is_got_once_and_used_again() -> None:
    state = {"a": torch.ones(100), "b": torch.ones(100), "c": torch.ones(7)}
    snapshot = Snapshot(CPU)
    snapshot.reserve(state)
    first, _ = snapshot.take(state)
    second, _ = snapshot.take(copy.deepcopy(state))
    assert pieces(first) == pieces(second)
    assert len(set(pieces(first))) == 3


def test_a_state_that_grew_is_copied_too() -> None:
    """An optimizer has no moments before its first step."""
    run = adam()
    snapshot = Snapshot(CPU)
    snapshot.reserve(build_state(run, {}))
    step(run)
    copied, _ = snapshot.take(build_state(run, {}))
    assert saved(copied) == saved(build_state(run, {}))


def test_the_size_counts_shared_memory_once() -> None:
    x = torch.ones(100)
    assert count_bytes({"a": x, "b": [x[:50]], "c": {"d": torch.ones(3, dtype=torch.uint8)}}) == 403


def test_all_that_an_update_changes_is_known_to_be_moved_by_it() -> None:
    """But for buffers, which a forward changes too: whatever else differs after an update would be copied too late."""
    run = adam()
    step(run)
    moved = {tensor.data_ptr() for player in run.players.values() for tensor in player.list_moving_tensors()}
    buffers = {b.data_ptr() for player in run.players.values() for b in player.network.buffers()}
    average = run.players["gen"].average
    assert average is not None
    buffers |= {b.data_ptr() for b in average.network.buffers()}
    before = copy.deepcopy(build_state(run, {}))
    step(run)
    after = dict(list_leaves(build_state(run, {})))
    changed = [
        name
        for name, value in list_leaves(before)
        if isinstance(value, Tensor) and not torch.equal(value, after[name])  # type: ignore[arg-type]
    ]
    assert len(changed) > 10
    assert all(after[name].data_ptr() in moved | buffers for name in changed)  # type: ignore[union-attr]
    assert not moved & buffers


def test_what_stays_still_is_copied_when_the_copy_is_completed_and_the_rest_at_once() -> None:
    state = {"weights": torch.ones(5), "buffer": torch.ones(5)}
    copied, complete = Snapshot(CPU).take(state, constant=[state["weights"]])
    assert copied["buffer"].tolist() == [1] * 5 and copied["weights"].tolist() == [0] * 5
    state["buffer"].fill_(2)
    complete()
    assert copied["buffer"].tolist() == [1] * 5 and copied["weights"].tolist() == [1] * 5
