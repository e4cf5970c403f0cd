"""A run that is continued with something changed: its batch, its config, its data."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
import yaml

from imagier.cli import main
from imagier.run import status
from imagier.train import checkpoint


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


def test_changed_keys_are_told_and_every_config_is_kept(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "max_iter=2") == status.DONE
    assert train(config, "max_iter=2") == status.DONE
    assert "changed: " not in capsys.readouterr().out
    assert train(config, "max_iter=3", "gen_opt.lr=2e-3", "trainer.loss_weight.l1=2", "--seed", "9") == status.DONE
    printed = {line for line in capsys.readouterr().out.splitlines() if "->" in line or "the run keeps" in line}
    assert printed == {
        "changed: max_iter 2 -> 3",
        "changed: trainer.loss_weight.l1 1.0 -> 2.0",
        "changed: gen_opt.lr 0.001 -> 0.002",
        "the run keeps its seed 2; 9 would be for a new one",
    }
    folder = config.parent / "run" / "configs"
    names = [f"config_iteration_{step:09d}.yaml" for step in (0, 2)]
    assert sorted(path.name for path in folder.iterdir()) == names
    kept = [yaml.safe_load((folder / name).read_text()) for name in names]
    assert [of["gen_opt"]["lr"] for of in kept] == [1e-3, 2e-3]
    assert [of["dis_opt"]["lr"] for of in kept] == [1e-3, 1e-3]  # in the file the same mapping (YAML's & and *)


def test_the_config_of_a_run_of_an_older_version_is_kept(config: Path) -> None:
    assert train(config, "max_iter=1") == status.DONE
    folder = config.parent / "run" / "configs"
    (kept,) = folder.iterdir()
    before = kept.read_bytes()
    kept.unlink()
    folder.rmdir()
    assert train(config, "max_iter=2") == status.DONE
    assert kept.read_bytes() == before
    assert (folder / "config_iteration_000000001.yaml").is_file()


@pytest.mark.parametrize("count", [13, 4])
def test_a_set_that_has_grown_or_shrunk_is_told(config: Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    assert train(config, "max_iter=3") == status.DONE
    for kind, channels in (("images", 3), ("seg_maps", 1)):
        for index in range(10, count):
            image = np.zeros((32, 32, channels), np.uint8)
            cv2.imwrite(str(config.parent / "data" / "train" / kind / f"{index:03d}.png"), image)
        for index in range(count, 10):
            (config.parent / "data" / "train" / kind / f"{index:03d}.png").unlink()
    capsys.readouterr()
    assert train(config, "max_epoch=1", "max_iter=100") == status.DONE
    lines = capsys.readouterr().out.splitlines()
    assert f"the training set has changed: 10 -> {count} samples, in a new order" in lines
    left = max(0, -(-(count - 6) // 2))
    assert lines[-1].startswith(f"finished at iteration {3 + left};")


SIX = ["data.one_hot_num_classes.seg_maps=6"]


def load_players(config: Path, step: int) -> dict:
    return checkpoint.load(next((config.parent / "run").glob(f"*_{step:09d}_checkpoint.pt")))["players"]


@pytest.mark.parametrize("words", [SIX, ["gen.num_filters=2"], ["dis.num_discriminators=2"]])
def test_another_network_is_refused_in_a_short_line_that_names_the_key(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert train(config, "max_iter=2") == status.DONE
    assert train(config, "max_iter=3", *words) == status.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert words[0].partition("=")[0] in line.partition("the config has changed: ")[2]
    assert len(line.removeprefix(str(config.parent))) < 500


def test_more_classes_keep_what_was_learned_of_the_others(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "max_iter=2") == status.DONE
    words = ["trainer.strict_resume=false", "gen_opt.lr=0", "dis_opt.lr=0"]
    assert train(config, "max_iter=3", *SIX, *words) == status.DONE
    printed = [line for line in capsys.readouterr().out.splitlines() if "size mismatch" in line]
    assert 0 < len(printed) <= 4
    assert max(map(len, printed)) < 300
    old, new = (load_players(config, step)["gen"]["network"] for step in (2, 3))
    grown = [name for name in old if old[name].shape != new[name].shape and old[name].dim() == 4]
    assert grown
    for name in grown:
        channels = old[name].shape[1]
        assert new[name].shape[1] == channels + 2
        assert torch.equal(new[name][:, :channels], old[name])
        assert new[name][:, channels:].abs().max() > 0


@pytest.mark.parametrize("words", [["trainer.model_average_config.remove_sn=false"]])
def test_the_key_that_decides_about_spectral_norms_is_named(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert train(config, "max_iter=2", "gen.weight_norm_type=spectral") == status.DONE
    (config.parent / "run" / "config.yaml").unlink()
    assert train(config, "max_iter=3", "gen.weight_norm_type=spectral", *words) == status.USER_ERROR
    assert "(trainer.model_average_config.remove_sn)" in capsys.readouterr().err


def test_what_cannot_be_the_cause_is_not_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "max_iter=2") == status.DONE
    words = ["gen.num_filters=2", "trainer.loss_weight.l1=2", "metrics=[psnr]", "data.num_workers=1", "gen_opt.lr=2e-3"]
    assert train(config, "max_iter=3", *words) == status.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("the config has changed: gen.num_filters 1 -> 2")


def test_a_default_that_an_older_version_had_is_no_change(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "max_iter=2") == status.DONE
    kept = config.parent / "run" / "config.yaml"
    tree = yaml.safe_load(kept.read_text())
    tree["trainer"]["image_to_tensorboard"], tree["keep_best"], tree["keep_last"] = False, None, 7
    kept.write_text(yaml.safe_dump(tree))
    capsys.readouterr()
    assert train(config, "max_iter=2") == status.DONE
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("changed: ")]
    assert printed == ["changed: keep_last 7 -> null"]


def test_configs_of_iterations_that_the_run_went_back_from_are_removed(config: Path) -> None:
    assert train(config, "max_iter=2") == status.DONE
    assert train(config, "max_iter=4", "gen_opt.lr=2e-3") == status.DONE
    assert train(config, "max_iter=5", "gen_opt.lr=3e-3") == status.DONE
    run = config.parent / "run"
    back = ["--checkpoint", str(next(run.glob("*_000000002_checkpoint.pt"))), "--resume", "1"]
    assert train(config, "max_iter=5", "gen_opt.lr=3e-3", *back) == status.DONE
    rates = {
        path.name[17:26]: yaml.safe_load(path.read_text())["gen_opt"]["lr"] for path in (run / "configs").iterdir()
    }
    assert rates == {"000000000": 1e-3, "000000002": 3e-3}


def test_a_dry_run_says_what_is_to_come_of_a_run_that_continues(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["snapshot_save_iter=4", "max_epoch=1000"]
    assert train(config, "max_iter=5", *words) == status.DONE
    capsys.readouterr()
    assert train(config, "max_iter=7", *words, "--dry-run") == status.DONE
    assert "no checkpoint before the end: " in capsys.readouterr().out, "from iteration 0 on there would be one"
