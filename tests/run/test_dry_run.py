"""A dry run checks and counts, and needs neither data nor memory for that."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import torch
from contract.experiment import EXPERIMENTS, config_of, write_data

from imagier.errors import RunError, UserError
from imagier.run import build_training, rehearsal
from imagier.run.dry_run import dry_run
from imagier.run.experiment import Experiment
from imagier.run.options import RunOptions
from imagier.train.runtime import Runtime

CPU = Runtime(torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_networks_are_counted_without_memory_for_them(data: Path, tmp_path: Path, name: str) -> None:
    config = config_of(name, data)
    session = dry_run(Experiment(config), RunOptions(logdir=tmp_path / "run"), CPU)
    built = build_training.build_untrained_recipe(config, CPU).networks
    for player, network in session.trainer.recipe.networks.items():
        parameters = list(network.parameters())
        assert all(p.is_meta for p in parameters)
        assert [p.shape for p in parameters] == [p.shape for p in built[player].parameters()]


def test_all_that_is_missing_is_told_after_the_config_and_the_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "imagier")
    gone = tmp_path / "gone"
    config = config_of("spade", gone, f"data.val={{roots: ['{gone}'], augmentations: {{resize_h_w: '32, 32'}}}}")
    options = RunOptions(logdir=tmp_path / "run", checkpoint=tmp_path / "no.pt")
    with pytest.raises(UserError) as caught:
        dry_run(Experiment(config), options, CPU)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path / 'no.pt'}: ")
    assert [line.startswith(f"{gone}: ") for line in lines[1:]] == [True]  # one root, of both sets
    said = [record.getMessage() for record in caplog.records]
    counts = {
        name: sum(p.numel() for p in network.parameters())
        for name, network in build_training.build_untrained_recipe(config, CPU).networks.items()
    }
    assert f"spade: parameters gen {counts['gen']:,}, dis {counts['dis']:,}" in said
    assert config.dump() in said


def test_a_single_mistake_keeps_its_place_and_code(data: Path, tmp_path: Path) -> None:
    config = config_of("funit", data, "dis.num_classes=1")
    with pytest.raises(UserError) as caught:
        dry_run(Experiment(config), RunOptions(logdir=tmp_path / "run"), CPU)
    assert (caught.value.where, caught.value.code) == ("trainer: dis.num_classes", "too-few-classes")


def test_compiling_is_refused_as_in_a_training(data: Path, tmp_path: Path) -> None:
    config = config_of("spade", data, "trainer.checkpoint_activations=[gen]")
    with pytest.raises(UserError) as caught:
        dry_run(Experiment(config), RunOptions(logdir=tmp_path / "run", compile=True), CPU)
    assert (caught.value.where, caught.value.code) == ("trainer.checkpoint_activations", "not-compiled")


def test_an_optimizer_that_refuses_its_weights_is_told(data: Path, tmp_path: Path) -> None:
    config = config_of("spade", data, "dis_opt={type: muon}")  # for matrices alone
    with pytest.raises(UserError) as caught:
        dry_run(Experiment(config), RunOptions(logdir=tmp_path / "run"), CPU)
    assert (caught.value.where, caught.value.code) == ("dis_opt", "wrong-optimizer")


SIZES = [
    ("pix2pixHD", "gen.global_generator.num_filters=3", "global_generator.num_filters"),
    ("pix2pixHD", "gen.global_generator.num_downsamples=6", "gen"),
    ("unit", "gen.num_downsamples_content=8", "gen"),
    ("funit", "dis.num_layers=12", "dis"),
]


@pytest.mark.parametrize(("name", "override", "where"), SIZES, ids=[row[1] for row in SIZES])
def test_sizes_that_the_networks_cannot_take_are_told(
    data: Path, tmp_path: Path, name: str, override: str, where: str
) -> None:
    config = config_of(name, data, override)
    with pytest.raises(UserError) as caught:
        dry_run(Experiment(config), RunOptions(logdir=tmp_path / "run"), CPU)
    assert where in caught.value.where and "\n" not in str(caught.value)


def test_an_iteration_that_torch_refuses_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contract.one_player.Recipe.step", lambda recipe, batch, ctx: torch.ones(2) + torch.ones(3))
    with pytest.raises(UserError) as caught:
        dry_run(Experiment(config_of("one_player", data)), RunOptions(logdir=tmp_path / "run"), CPU)
    assert caught.value.code == "iteration-fails" and "32 x 32 px" in caught.value.what


def test_networks_that_are_too_large_are_not_tried(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "imagier")
    monkeypatch.setattr(rehearsal, "MOST_WORK", 1)
    dry_run(Experiment(config_of("spade", data)), RunOptions(logdir=tmp_path / "run"), CPU)
    assert "the networks are too large to try an iteration in a dry run" in caplog.messages


@pytest.mark.parametrize("message", ["can't allocate memory: you tried to allocate 8 bytes", "CUDA out of memory"])
def test_networks_that_do_not_fit_into_memory_are_no_mistake(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, message: str
) -> None:
    caplog.set_level("INFO", "imagier")
    fail_with(RuntimeError(message), monkeypatch)
    dry_run(Experiment(config_of("one_player", data)), RunOptions(logdir=tmp_path / "run"), CPU)
    assert rehearsal.TOO_LARGE in caplog.messages


def test_an_error_of_ours_is_passed_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(RunError("a worker died"), monkeypatch)
    with pytest.raises(RunError, match="a worker died"):
        dry_run(Experiment(config_of("one_player", data)), RunOptions(logdir=tmp_path / "run"), CPU)


class FirstOfTwo(Runtime):
    """The first of two ranks, which agree."""

    def broadcast(self, value: object) -> object:  # type: ignore[override]
        return value

    def all_reduce_max(self, value: int) -> int:
        return value


def test_of_several_ranks_none_tries_an_iteration(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(RuntimeError("no backend for a tensor on the CPU"), monkeypatch)
    runtime = FirstOfTwo(torch.device("cpu"), world=2)
    dry_run(Experiment(config_of("one_player", data)), RunOptions(logdir=tmp_path / "run"), runtime)


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every iteration end with an error."""

    def fail(recipe: object, batch: object, ctx: object) -> NoReturn:
        raise error

    monkeypatch.setattr("contract.one_player.Recipe.step", fail)
