"""Whole runs through the command line, on a SPADE of a few weights: what they leave, and what stops them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
import yaml

from imagier.cli import main
from imagier.run import debug
from imagier.run.experiment import read_experiment
from imagier.run.inference import write_images
from imagier.run.options import RunOptions
from imagier.train.runtime import Runtime

EVERYTHING = [
    "logging_iter=2",
    "image_save_iter=3",
    "snapshot_save_iter=3",
    "trainer.model_average_config={enabled: true, beta: 0.5, start_iteration: 0}",
    "trainer.image_to_tensorboard=true",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=4, val=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The config of a run of five iterations, whose folder is `log` beside it."""
    config = tiny.write_config(tmp_path_factory.mktemp("run") / "small.yaml", data)
    assert run("train", config, "max_iter=5", *EVERYTHING) == 0
    return config


def run(command: str, config: Path, *words: object) -> int:
    where = ["--config", config, "--logdir", config.parent / "log", "--device", "cpu"]
    return main([str(word) for word in (command, *where, *words)])


def records(log: Path) -> list[dict]:
    return [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_config_log_images_checkpoints_and_report(finished: Path) -> None:
    log = finished.parent / "log"
    found = {path.relative_to(log).as_posix() for path in log.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "metrics.jsonl",
        "report.html",
        "report.json",
        "latest_checkpoint.txt",
        "images/epoch_00001_iteration_000000003.jpg",
        "images/epoch_00002_iteration_000000005.jpg",
        "epoch_00001_iteration_000000003_checkpoint.pt",
        "epoch_00002_iteration_000000005_checkpoint.pt",
    } <= found
    assert any(name.startswith("tensorboard/events") for name in found)
    assert not [name for name in found if name.endswith(".tmp")]
    assert yaml.safe_load((log / "config.yaml").read_text())["max_iter"] == 5
    losses = [record for record in records(log) if "gen_update/total" in record]
    assert [record["step"] for record in losses] == [2, 4, 5]
    report = (log / "report.html").read_text()
    assert "data:image/" in report
    assert not re.search(r"""\b(?:src|href)=["'](?!data:|#)|@import|url\((?!#)""", report), (
        "needs something from elsewhere"
    )


def test_files_of_a_run_can_be_read_by_whom_the_umask_lets(finished: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for name in ("config.yaml", "report.html", "report.json", "latest_checkpoint.txt"):
        assert (finished.parent / "log" / name).stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("batch_size", [1, 2])
def test_inference_writes_every_sample_the_last_batch_too(finished: Path, tmp_path: Path, batch_size: int) -> None:
    assert run("infer", finished, "--output_dir", tmp_path, f"data.val.batch_size={batch_size}") == 0
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    root = Path(yaml.safe_load(finished.read_text())["data"]["val"]["roots"][0])
    expected = sorted(
        path.relative_to(root / "images").with_suffix(".jpg").as_posix() for path in root.glob("images/**/*.png")
    )
    assert written == expected
    assert len(written) == 3


def test_each_rank_writes_its_share_even_of_a_set_that_each_validates_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("all_reduce_sum", "broadcast"):
        monkeypatch.setattr(Runtime, name, lambda runtime, value: value)
    config = tmp_path / "alone.yaml"
    tree = yaml.safe_load(finished.read_text())
    tree["data"]["val_data_loader_not_distributed"] = True
    config.write_text(yaml.safe_dump(tree))
    options = RunOptions(logdir=finished.parent / "log")
    experiment = read_experiment(config, options)
    ranks = [Runtime(torch.device("cpu"), rank=rank, world=2) for rank in range(2)]
    assert [len(write_images(experiment, tmp_path / "out", options, rank)) for rank in ranks] == [2, 1]
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 3


def test_inference_uses_the_averaged_weights(finished: Path, tmp_path: Path) -> None:
    path = finished.parent / "log" / "epoch_00002_iteration_000000005_checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["players"]["gen"]["network"] = {k: torch.zeros_like(v) for k, v in state["players"]["gen"]["network"].items()}
    other = tmp_path / "other.pt"
    torch.save(state, other)
    images = []
    for checkpoint in (path, other):
        out = tmp_path / checkpoint.stem
        assert run("infer", finished, "--checkpoint", checkpoint, "--output_dir", out, *EVERYTHING[3:4]) == 0
        images.append(np.stack([cv2.imread(str(one)) for one in sorted(out.rglob("*.jpg"))]))
    np.testing.assert_array_equal(*images)
    assert images[0].std() > 0


def test_inference_without_a_pointer_uses_the_last_checkpoint_that_was_written(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    shutil.copytree(finished.parent / "log", log)
    (log / "latest_checkpoint.txt").unlink()
    where = ["--logdir", str(log), "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["infer", *where]) == 0
    assert "was written is epoch_00002_iteration_000000005_checkpoint.pt" in capsys.readouterr().out
    (log / "latest_checkpoint.txt").mkdir()
    assert main(["infer", *where]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{log / 'latest_checkpoint.txt'}: cannot be read")


def test_inference_reads_the_test_section_where_there_is_one(finished: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(finished.read_text())
    test = {name: value for name, value in tree["data"].items() if name not in ("train", "val")}
    train_roots = tree["data"]["train"]["roots"]
    tree["test_data"] = {**test, "test": {**tree["data"]["val"], "roots": train_roots}}
    config = tmp_path / "with_test.yaml"
    config.write_text(yaml.safe_dump(tree))
    words = [
        "--config",
        config,
        "--checkpoint",
        finished.parent / "log" / "epoch_00002_iteration_000000005_checkpoint.pt",
    ]
    assert main(["infer", *map(str, words), "--output_dir", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 4  # the training set's


@pytest.mark.slow
def test_a_profile_leaves_table_trace_and_memory(tmp_path: Path, data: Path) -> None:
    config = tiny.write_config(tmp_path / "small.yaml", data)
    assert run("train", config, "--profile", "max_iter=14") == 0
    profile = tmp_path / "log" / "profile"
    assert {path.suffix for path in profile.iterdir()} >= {".json", ".txt"}
    trace = next(profile.glob("*.json"))
    assert json.loads(trace.read_text())["traceEvents"]
    assert "aten::" in next(profile.glob("*.txt")).read_text()


def test_wandb_keeps_its_run_over_a_resume(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = tiny.write_config(tmp_path / "small.yaml", data)
    assert run("train", config, "--wandb", "max_iter=1") == 0
    first = (tmp_path / "log" / "wandb_id.txt").read_text()
    assert run("train", config, "--wandb", "max_iter=2") == 0
    assert (tmp_path / "log" / "wandb_id.txt").read_text() == first
    assert len(list((tmp_path / "log").glob("wandb/offline-run-*"))) == 2


def test_debug_tries_saving_images_and_continuing_within_a_few_steps(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.write_config(tmp_path / "small.yaml", data)
    assert run("train", config, "--debug", "max_iter=1000") == 0
    said = capsys.readouterr().out
    assert "iter 1/4" in said
    assert "continuing from iteration 2 gives the same result, bit for bit" in said
    assert not torch.is_anomaly_enabled()


@pytest.mark.slow  # four minutes, nearly all of them the compiler's
def test_compiled_networks_learn_the_same(tmp_path: Path, data: Path) -> None:
    losses = []
    for words in ([], ["--compile"]):
        folder = tmp_path / str(len(words))
        folder.mkdir()
        config = tiny.write_config(folder / "small.yaml", data)
        assert run("train", config, *words, "max_iter=3", "logging_iter=1") == 0
        losses.append(
            [record["gen_update/total"] for record in records(folder / "log") if "gen_update/total" in record]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["max_epoch=1"], ["--checkpoint", "CHECKPOINT", "--resume", "1"]])
def test_debug_takes_all_of_its_steps(finished: Path, tmp_path: Path, words: list[str]) -> None:
    """However short the run, and wherever it would begin."""
    path = finished.parent / "log" / "epoch_00002_iteration_000000005_checkpoint.pt"
    words = [str(path) if word == "CHECKPOINT" else word for word in words]
    assert run("train", finished, "--debug", "--logdir", tmp_path, *EVERYTHING[3:4], *words) == 0


def test_a_run_in_debugging_is_deterministic_whatever_its_config(finished: Path) -> None:
    config = read_experiment(finished, RunOptions()).config
    short = debug.shorten(config).run
    assert config.run.cudnn.benchmark
    assert (short.cudnn.deterministic, short.cudnn.benchmark) == (True, False)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--debug", "--dry-run"], "--debug: cannot be combined with --dry-run; choose one"),
        (["--checkpoint", "CHECKPOINT"], "log: holds another run, whose log would be lost; choose another --logdir"),
        (["--resume", "0"], "log: holds another run, whose log would be lost; choose another --logdir"),
    ],
)
def test_what_would_lose_a_run_or_contradicts_itself_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    path = finished.parent / "log" / "epoch_00002_iteration_000000005_checkpoint.pt"
    before = (finished.parent / "log" / "metrics.jsonl").read_bytes()
    assert run("train", finished, *(str(path) if word == "CHECKPOINT" else word for word in words)) == 2
    assert line in capsys.readouterr().err
    assert (finished.parent / "log" / "metrics.jsonl").read_bytes() == before
