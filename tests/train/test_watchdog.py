"""A run that hangs is ended, and says where it hung."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiny
import torch

from imagier.cli import main
from imagier.recipe import Position
from imagier.run import status
from imagier.train.hooks.watchdog import Watchdog
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Progress, Trainer

TRAINER = Trainer(None, {}, Runtime(torch.device("cpu")), seed=0)  # type: ignore[arg-type]

HANGING = """
import sys, threading
from imagier.cli import main
from imagier.recipe import Recipe
from imagier.train.trainer import Trainer

before = Trainer.train_step

def hangs_here(self, batch):
    if self.step == 2 and self.runtime.rank == self.runtime.world - 1:
        threading.Event().wait()
    return before(self, batch)

Trainer.train_step = hangs_here
sys.exit(main())
"""


def progress(step: int) -> Progress:
    return Progress(step, Position(), False, Outcome.GO_ON, {})


def test_a_step_in_time_ends_nothing(tmp_path: Path) -> None:
    ended: list[int] = []
    dog = Watchdog(tmp_path, 60, status=76, end=ended.append)
    for step in range(3):
        dog.after_step(TRAINER, progress(step))
    dog.after_fit(TRAINER, progress(3))
    assert ended == [] and not list(tmp_path.iterdir())


def test_a_step_that_takes_too_long_writes_down_where_each_thread_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagier.train.hooks.watchdog.OTHERS_S", 0)
    ended, over = [], threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        over.set()

    dog = Watchdog(tmp_path, 0.05, rank=3, status=76, end=end)
    dog.after_step(TRAINER, progress(7))
    assert over.wait(30)
    written = (tmp_path / "hang_rank3.txt").read_text()
    assert ended == [76]
    assert "rank 3: no step for longer than the time limit (0.05 s) after iteration 7" in written
    assert "test_a_step_that_takes_too_long" in written, "this thread's stack, where it waits"


def test_a_disk_that_is_gone_keeps_no_run_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("imagier.train.hooks.watchdog.OTHERS_S", 0)
    ended, over = [], threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        over.set()

    dog = Watchdog(tmp_path / "gone", 0.05, status=76, end=end)
    dog.after_step(TRAINER, progress(7))
    assert over.wait(30) and ended == [76]
    assert "after iteration 7" in capfd.readouterr().err


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    config = tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))
    logdir = str(tmp_path / "run")
    return ["train", "--config", str(config), "--logdir", logdir, "--device", "cpu", "--step_timeout", "2"]


def test_a_run_with_a_watchdog_that_does_not_hang_ends_as_ever(words: list[str]) -> None:
    assert main([*words, "max_iter=2", "--step_timeout", "1h"]) == status.DONE
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.slow
def test_a_run_that_hangs_ends_with_its_own_status(words: list[str], tmp_path: Path) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == status.HUNG
    assert "in hangs_here" in (tmp_path / "run" / "hang_rank0.txt").read_text()
    assert "rank 0: no step for longer than the time limit (2 s) after iteration 2" in done.stderr


@pytest.mark.slow
def test_all_ranks_say_where_they_are_when_one_hangs(words: list[str], tmp_path: Path) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launcher, str(script), *words], capture_output=True, text=True, timeout=180)
    assert done.returncode != 0
    assert "in hangs_here" in (tmp_path / "run" / "hang_rank1.txt").read_text()
    assert "in finish" in (tmp_path / "run" / "hang_rank0.txt").read_text()
