"""A run over a set with a broken file: what it does, says, counts, and with what status it ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import tiny

from imagier.cli import main
from imagier.train.hooks.console import Console


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Ten samples to train on, of which the image of one is empty, and five held out, of which that of one is."""
    data = tiny.write_data(tmp_path / "data")
    for split in ("train", "val"):
        (data / split / "images" / "003.png").write_bytes(b"")
    return tiny.write_config(tmp_path / "tiny.yaml", data)


def train(config: Path, *words: str) -> int:
    where = ["--config", str(config), "--logdir", str(config.parent / "log"), "--device", "cpu"]
    return main(["train", *where, *words])


def test_a_broken_file_stops_a_run_before_it_begins(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(experiment) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all(
        line.endswith("images/003.png: the file is empty; restore it or remove it from the set") for line in told
    )


def test_a_broken_file_that_is_skipped_is_told_and_counted(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(experiment, "data.on_error=skip", "max_iter=10") == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if line.startswith("skipped: ")]
    assert sorted(Path(line.partition(": ")[2].partition(".png")[0]).parts[-3:] for line in told) == [
        ("train", "images", "003"),
        ("val", "images", "003"),
    ]
    records = [json.loads(line) for line in (experiment.parent / "log" / "metrics.jsonl").read_text().splitlines()]
    counts = {record["step"]: record["data/skipped"] for record in records if "data/skipped" in record}
    assert list(counts.values()) == sorted(counts.values())
    assert counts[10] >= 3, "once in each of two epochs, and once among the held-out samples that are shown"
    assert any(f"data: skipped {counts[10]:.4g}" in line for line in lines)


def test_a_worker_that_is_killed_ends_a_run_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(self: Console, trainer: object, progress: object) -> None:
        for worker in multiprocessing.active_children()[:1]:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)

    monkeypatch.setattr(Console, "after_step", kill)
    config = tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))
    assert train(config, "data.num_workers=1", "max_iter=100") == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("a process that reads data (pid ")
    assert "was killed" in told[0]
