"""Any player may keep an average: it is what is looked at, what a checkpoint holds, and what a run continues with."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import pytest
import torch
from test_trainer import Line, data, endless, trainer, until

from imagier.nn.average import ModelAverage
from imagier.train import checkpoint
from imagier.train.compare import find_first_difference
from imagier.train.trainer import Trainer
from imagier.train.view import View, collect_averages

BETA = 0.75

VIEW = View(lambda recipe: nullcontext())


def averaging(*names: str) -> Trainer:
    """A trainer whose players of these names keep averages."""
    made = trainer(Line())
    for name in names:
        player = made.players[name]
        player.average = ModelAverage(player.network, beta=BETA, start_iteration=0)
    return made


EACH = pytest.mark.parametrize("names", [("gen",), ("dis",), ("gen", "dis")], ids="+".join)


@EACH
def test_an_average_follows_its_own_player(names: tuple[str, ...]) -> None:
    tested = averaging(*names)
    expected = {name: tested.recipe.networks[name].weight.item() for name in names}
    for _ in range(3):
        tested.train_step(data())
        for name in names:
            expected[name] = BETA * expected[name] + (1 - BETA) * tested.recipe.networks[name].weight.item()
    found = collect_averages(tested)
    assert {name: network.weight.item() for name, network in found.items()} == pytest.approx(expected)


@EACH
def test_a_view_shows_averages_where_there_are_some_and_other_players_as_they_are(names: tuple[str, ...]) -> None:
    tested = averaging(*names)
    tested.recipe.train()
    tested.train_step(data())
    with VIEW.use_average_weights(tested) as recipe:
        for name, network in recipe.networks.items():
            average = tested.players[name].average
            assert network is (tested.recipe.networks[name] if average is None else average.network)
            assert not network.training
    assert all(network.training for network in tested.recipe.networks.values())


@EACH
def test_a_run_that_continues_has_the_averages_of_one_that_never_stopped(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    whole, parts, continued = (averaging(*names) for _ in range(3))
    whole.fit(endless(), until(5))
    parts.fit(endless(), until(3))
    path = checkpoint.save(tmp_path, parts, {})
    checkpoint.restore(continued, checkpoint.load(path), path)
    continued.fit(islice(endless(), 3, None), until(5))
    states = [{name: player.state_dict() for name, player in run.players.items()} for run in (whole, continued)]
    assert find_first_difference(*states) is None
    assert all("average" in states[1][name] for name in names)


def test_an_average_that_is_new_begins_at_the_weights_of_the_checkpoint(tmp_path: Path) -> None:
    before, after = averaging("gen"), averaging("dis")
    before.fit(endless(), until(3))
    path = checkpoint.save(tmp_path, before, {})
    checkpoint.restore(after, checkpoint.load(path), path)
    assert torch.equal(collect_averages(after)["dis"].weight, before.recipe.networks["dis"].weight)


def test_the_weights_and_averages_of_a_checkpoint_begin_a_new_run(tmp_path: Path) -> None:
    before, after = averaging("gen", "dis"), averaging("gen", "dis")
    before.fit(endless(), until(3))
    path = checkpoint.save(tmp_path, before, {})
    checkpoint.restore_weights(after, checkpoint.load(path), path)
    for name in ("gen", "dis"):
        assert torch.equal(collect_averages(after)[name].weight, collect_averages(before)[name].weight)
        assert not torch.equal(collect_averages(after)[name].weight, after.recipe.networks[name].weight)
