"""A run that was stopped and continued is the run that was never stopped, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import tiny
import torch

from imagier.cli import main
from imagier.run import status
from imagier.train.checkpoint import load
from imagier.train.compare import find_first_difference


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))


def run(config: Path, logdir: Path, *words: str, ends_with: int = status.DONE) -> None:
    words = ("--config", str(config), "--logdir", str(logdir), "--device", "cpu", *words)
    assert main(["train", *words]) == ends_with


def state(logdir: Path, step: int) -> dict:
    return load(next(logdir.glob(f"epoch_*_iteration_{step:09d}_checkpoint.pt")))


def logged(logdir: Path) -> list[dict]:
    """The logged losses, without what depends on the clock."""
    records = [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "epoch", "gen_update", "dis_update", "optim")
    losses = [{k: v for k, v in record.items() if k.startswith(kept)} for record in records]
    return [record for record in losses if any("/" in key for key in record)]


def assert_same_run(one: Path, other: Path, step: int) -> None:
    first, second = state(one, step), state(other, step)
    assert find_first_difference(first["players"], second["players"]) is None
    for key in ("current_epoch", "current_iteration", "epoch_samples"):
        assert first[key] == second[key]


@pytest.mark.parametrize(
    "middle",
    [
        pytest.param(3, id="mid-epoch"),
        pytest.param(5, id="epoch's end", marks=pytest.mark.slow),
        pytest.param(4, id="mid-epoch, logged", marks=pytest.mark.slow),
    ],
)
def test_stopping_and_continuing_changes_no_bit(experiment: Path, tmp_path: Path, middle: int) -> None:
    run(experiment, tmp_path / "whole", "max_iter=8")
    run(experiment, tmp_path / "parts", f"max_iter={middle}")
    run(experiment, tmp_path / "parts", "max_iter=8")

    assert_same_run(tmp_path / "whole", tmp_path / "parts", 8)
    at_periods = [record for record in logged(tmp_path / "parts") if record["step"] % 2 == 0]
    assert at_periods == logged(tmp_path / "whole")


@pytest.mark.slow
def test_continuing_with_other_workers_changes_no_bit(experiment: Path, tmp_path: Path) -> None:
    run(experiment, tmp_path / "whole", "max_iter=8", "--num_workers", "0")
    run(experiment, tmp_path / "parts", "max_iter=3", "--num_workers", "2")
    run(experiment, tmp_path / "parts", "max_iter=8", "--num_workers", "1")

    assert_same_run(tmp_path / "whole", tmp_path / "parts", 8)


@pytest.mark.slow
def test_the_scaler_of_fp16_continues_too(experiment: Path, tmp_path: Path) -> None:
    half = ["trainer.precision=fp16", "trainer.amp_config.growth_interval=2", "trainer.amp_config.init_scale=8"]
    run(experiment, tmp_path / "whole", "max_iter=6", *half)
    run(experiment, tmp_path / "parts", "max_iter=3", *half)
    run(experiment, tmp_path / "parts", "max_iter=6", *half)

    assert_same_run(tmp_path / "whole", tmp_path / "parts", 6)
    assert state(tmp_path / "whole", 6)["players"]["gen"]["scaler"]["scale"] > 8


def test_sigterm_saves_and_the_run_goes_on(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(experiment, tmp_path / "whole", "max_iter=6")

    from imagier.train.hooks.console import Console

    def terminate(self: Console, trainer: object, progress: object) -> None:
        if progress.step == 2:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Console, "after_step", terminate)
    run(experiment, tmp_path / "parts", "max_iter=6", ends_with=status.INTERRUPTED)
    assert state(tmp_path / "parts", 3)["current_iteration"] == 3, "the step after the signal is the last"
    monkeypatch.undo()
    run(experiment, tmp_path / "parts", "max_iter=6")

    assert_same_run(tmp_path / "whole", tmp_path / "parts", 6)


def test_max_time_saves_and_ends(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(experiment, tmp_path / "run", "max_iter=1000000", "--max_time", "0.01", ends_with=status.INTERRUPTED)

    assert state(tmp_path / "run", 1)["current_iteration"] == 1
    assert "stopped at iteration 1 of 1,000,000" in capsys.readouterr().out


def test_a_checkpoint_alone_gives_its_weights_but_not_its_time(experiment: Path, tmp_path: Path) -> None:
    run(experiment, tmp_path / "first", "max_iter=4")
    path = next((tmp_path / "first").glob("*.pt"))
    run(experiment, tmp_path / "second", "max_iter=0", "--checkpoint", str(path), "snapshot_save_iter=1")
    # A run of no steps saves nothing; one of one step with learning rates of 0 saves the weights that it began with.
    run(experiment, tmp_path / "third", "max_iter=1", "--checkpoint", str(path), "gen_opt.lr=0", "dis_opt.lr=0")

    saved, taken = state(tmp_path / "first", 4)["players"], state(tmp_path / "third", 1)["players"]
    for name in ("gen", "dis"):
        for key, tensor in saved[name]["network"].items():
            if not key.endswith((".u", ".v", "running_mean", "running_var", "num_batches_tracked")):
                assert torch.equal(tensor, taken[name]["network"][key]), key
    assert not list((tmp_path / "second").glob("*.pt"))


def test_a_finished_run_is_not_trained_again(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment, tmp_path / "run", "max_iter=2")
    before = state(tmp_path / "run", 2)
    run(experiment, tmp_path / "run", "max_iter=2")

    assert find_first_difference(before["players"], state(tmp_path / "run", 2)["players"]) is None
    assert "finished at iteration 2" in capsys.readouterr().out
