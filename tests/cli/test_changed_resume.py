"""A run that is continued with something changed: its batch, its config, its data."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from imagier.cli import main
from imagier.run import status


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))


def train(config: Path, *words: str) -> int:
    where = ["--config", str(config), "--logdir", str(config.parent / "run"), "--device", "cpu"]
    return main(["train", *where, "data.val=null", *words])


@pytest.mark.parametrize(("epochs", "batch_size", "steps"), [(1, 1, 4), (2, 5, 3), (2, 10, 2)])
def test_with_another_batch_the_end_follows_from_what_is_left(
    config: Path, capsys: pytest.CaptureFixture[str], epochs: int, batch_size: int, steps: int
) -> None:
    """Three steps of 2 have taken 6 of the 10 samples of the first epoch."""
    assert train(config, "max_iter=3") == status.DONE
    capsys.readouterr()
    words = [f"max_epoch={epochs}", "max_iter=1000", f"data.train.batch_size={batch_size}", "logging_iter=1"]
    assert train(config, *words) == status.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("/")[2].split()[0] for line in lines if "img/s" in line] == [f"{3 + steps}"] * steps
    assert lines[-1].startswith(f"finished at iteration {3 + steps};")


def test_a_learning_rate_of_0_is_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = "gen_opt.lr_policy={type: linear, iteration_mode: true, decay_start: 2, decay_end: 4, decay_target: 0}"
    assert train(config, "max_iter=4", policy) == status.DONE
    assert "the learning rate" not in capsys.readouterr().out
    assert train(config, "max_iter=6", policy) == status.DONE
    assert "gen_opt: the learning rate is 0 from iteration 4 on" in capsys.readouterr().out.splitlines()


def test_a_learning_rate_of_0_is_told_by_epochs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = "dis_opt.lr_policy={type: linear, decay_start: 0, decay_end: 1, decay_target: 0}"
    assert train(config, "max_iter=6", policy) == status.DONE
    assert "dis_opt: the learning rate is 0 from epoch 1 on" in capsys.readouterr().out.splitlines()
