"""The log of a run that was killed or stopped, and continued, is the log of the run that was never disturbed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from imagier.cli import main
from imagier.run import status
from imagier.train.hooks import files
from imagier.train.hooks.checkpoints import Checkpoints
from imagier.train.hooks.log import Log
from imagier.train.trainer import Progress, Trainer

CLOCK = ("time", "speed/", "memory/")


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five iterations an epoch; a record every 3 of them, a checkpoint and scores every 4, health every 5."""
    monkeypatch.setattr("imagier.run.hooks.HEALTH_EVERY", 5)
    data = tiny.write_data(tmp_path / "data", val=2)
    config = tiny.config(data, logging_iter=3, snapshot_save_iter=4, max_iter=12)
    config["trainer"]["model_average_config"]["enabled"] = False  # to be faster
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def run(config: Path, logdir: Path, *words: str) -> int:
    return main(["train", "--config", str(config), "--logdir", str(logdir), "--device", "cpu", *words])


def read(logdir: Path) -> list[dict[str, Any]]:
    """All records, in order, without what depends on the clock."""
    lines = (logdir / files.NAME).read_text().splitlines()
    return [{key: x for key, x in json.loads(line).items() if not key.startswith(CLOCK)} for line in lines]


class Killed(Exception):
    """Ends a run in the middle of an iteration."""


def kill() -> None:
    raise Killed


def stop() -> None:
    signal.raise_signal(signal.SIGTERM)


def act(patch: pytest.MonkeyPatch, hook: type, step: int, action: Callable[[], None]) -> None:
    """Lets something happen once a hook was called after a step."""
    watch: Callable[..., None] = hook.after_step

    def after_step(self: Any, trainer: Trainer, progress: Progress) -> None:
        watch(self, trainer, progress)
        if progress.step == step:
            action()

    patch.setattr(hook, "after_step", after_step)


def test_the_log_of_a_run_that_is_killed_and_stopped_again_and_again_is_exact(experiment: Path, tmp_path: Path) -> None:
    """Scores and images are made once each, also those of the step at which a run is stopped, or killed after its save.

    The weights that the health of step 5 compares are those from before the run continued.
    """
    assert run(experiment, tmp_path / "whole") == status.DONE
    parts = tmp_path / "parts"
    for hook, step, action in [
        (Log, 3, kill),
        (Log, 3, stop),  # after step 4, with scores
        (Checkpoints, 8, kill),  # before its scores and its image
        (Log, 9, stop),  # after step 10, between two checkpoints
    ]:
        with pytest.MonkeyPatch.context() as patch:
            act(patch, hook, step, action)
            with pytest.raises(Killed) if action is kill else nullcontext():
                assert run(experiment, parts) == status.INTERRUPTED
        if step == 3 and action is stop:
            (entry,) = json.loads((parts / "checkpoints.json").read_text())["checkpoints"]
            assert (entry["step"], entry["metrics"].keys()) == (4, {"L1", "PSNR"})
            assert (parts / "images/epoch_00000_iteration_000000004.jpg").exists()
        with (parts / files.NAME).open("a") as file:
            file.write('{"step": 8, "ep')  # as if it had died in the middle of a line
    assert run(experiment, parts) == status.DONE
    whole = read(tmp_path / "whole")
    assert read(parts) == whole

    tags = {tag for record in whole for tag in record}
    assert {"gen_update/total", "optim/gen_lr", "L1/regular"} <= tags
    assert [record["step"] for record in whole if "L1/regular" in record] == [4, 8, 12]
    assert [record["step"] for record in whole if "health/gen_update_ratio" in record] == [5, 10]


def test_the_best_checkpoint_may_be_the_one_at_which_a_run_was_stopped(experiment: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imagier.run.training.Stop.__call__", lambda stop, step, epoch: 3 if step == 4 else 0)
        assert run(experiment, tmp_path / "run", "keep_best=L1", "keep_last=1") == status.INTERRUPTED
    assert "iteration_000000004" in (tmp_path / "run/best_checkpoint.txt").read_text()


KILLED_RUN = """
import os, signal, sys
from imagier.cli import main
from imagier.train.hooks.checkpoints import Checkpoints
from imagier.train.hooks.images import Images
watch, at = Images.after_step, int(sys.argv.pop(1))
def after_step(self, trainer, progress):
    watch(self, trainer, progress)
    if progress.step == at and trainer.runtime.rank == trainer.runtime.world - 1:
        os.kill(os.getpid(), signal.SIGKILL)
Images.after_step = after_step
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_log_of_a_run_whose_processes_are_killed_is_exact(experiment: Path, tmp_path: Path, ranks: int) -> None:
    script = tmp_path / "killed_run.py"
    script.write_text(KILLED_RUN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]

    def start(logdir: str, kill_at: int) -> int:
        words = ["train", "--config", experiment, "--logdir", tmp_path / logdir, "--device", "cpu"]
        command = [*(launch if ranks > 1 else launch[:1]), script, kill_at, *words]
        return subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, timeout=120).returncode

    assert start("whole", 0) == 0
    assert start("parts", 4) != 0
    assert start("parts", 7) != 0
    assert start("parts", 8) != 0
    assert start("parts", 0) == 0
    assert read(tmp_path / "parts") == read(tmp_path / "whole")
