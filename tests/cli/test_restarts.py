"""A run that is started again, by whomever, finds itself and continues."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from imagier.cli import main
from imagier.run import status
from imagier.train import checkpoint
from imagier.train.checkpoint_files import find_latest
from imagier.train.compare import find_first_difference

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

KILLED_ONCE = """
import os, signal, sys
from imagier.cli import main
from imagier.train.trainer import Trainer

before = Trainer.train_step

def dies_once(self, batch):
    if self.step == 4 and self.runtime.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return before(self, batch)

Trainer.train_step = dies_once
sys.exit(main())
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"), snapshot_save_iter=2)


def words(config: Path, logdir: Path, *more: str) -> list[str]:
    return ["train", "--config", str(config), "--logdir", str(logdir), "--device", "cpu", *more]


def state(logdir: Path, step: int) -> dict:
    return checkpoint.load(next(logdir.glob(f"epoch_*_iteration_{step:09d}_checkpoint.pt")))


@pytest.fixture
def other(config: Path, tmp_path: Path) -> str:
    """The checkpoint of another run."""
    assert main(words(config, tmp_path / "other", "max_iter=2", "--seed", "5")) == status.DONE
    return str(find_latest(tmp_path / "other"))


@pytest.mark.parametrize(
    ("more", "environment"),
    [
        pytest.param([], {}, marks=pytest.mark.slow),
        pytest.param([], {"SLURM_RESTART_COUNT": "1"}, marks=pytest.mark.slow),
        pytest.param(["--resume", "0"], {"TORCHELASTIC_RESTART_COUNT": "1"}, marks=pytest.mark.slow),
        (["--resume", "1"], {"TORCHELASTIC_RESTART_COUNT": "1"}),
    ],
)
def test_a_run_that_began_with_a_checkpoint_goes_on_with_its_own_when_it_is_started_again(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    other: str,
    more: list[str],
    environment: dict[str, str],
) -> None:
    begin = ["--checkpoint", other, *more]
    assert main(words(config, tmp_path / "whole", "max_iter=6", *begin)) == status.DONE
    for end in (3, 5, 6):
        assert main(words(config, tmp_path / "parts", f"max_iter={end}", *begin)) == status.DONE
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
    assert "continues from epoch_00000_iteration_000000005_checkpoint.pt" in capsys.readouterr().out
    whole, parts = (state(tmp_path / name, 6) for name in ("whole", "parts"))
    assert find_first_difference(whole["players"], parts["players"]) is None


def test_another_run_in_the_folder_is_never_gone_on_with(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    assert main(words(config, tmp_path / "run", "max_iter=2")) == status.DONE
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main(words(config, tmp_path / "run", "max_iter=4", "--checkpoint", other)) == status.USER_ERROR
    assert "holds another run" in capsys.readouterr().err


def test_a_run_that_went_back_to_an_earlier_checkpoint_goes_on_from_there_when_it_is_started_again(
    config: Path, tmp_path: Path
) -> None:
    log = tmp_path / "run"
    assert main(words(config, log, "max_iter=6")) == status.DONE
    earlier = next(log.glob("*_000000002_checkpoint.pt"))
    back = ["--checkpoint", str(earlier), "--resume", "1"]
    assert main(words(config, log, "max_iter=2", *back)) == status.DONE, "ended before it saved anything"
    assert find_latest(log) == earlier


@pytest.mark.parametrize("name", ["TORCHELASTIC_MAX_RESTARTS", "SLURM_RESTART_COUNT"])
def test_what_may_be_started_again_must_name_its_folder(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "3")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(config), "--device", "cpu"]) == status.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--logdir: missing: ")
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_two_ranks_of_which_one_is_killed_end_by_themselves_as_if_nothing_had_been(
    config: Path, tmp_path: Path
) -> None:
    script = tmp_path / "killed_once.py"
    script.write_text(KILLED_ONCE)
    for name, launched in (("whole", ["-m", "imagier"]), ("killed", ["--max-restarts=1", str(script)])):
        command = [*TORCHRUN, *launched, *words(config, tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "continues from epoch_00001_iteration_000000004_checkpoint.pt" in done.stdout or (
        "continues from epoch_00000_iteration_000000002_checkpoint.pt" in done.stdout  # the last was not written yet
    )
    whole, killed = (state(tmp_path / name, 6) for name in ("whole", "killed"))
    assert find_first_difference(whole["players"], killed["players"]) is None


def test_a_new_run_is_gone_on_with_when_slurm_starts_its_job_again(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(config, tmp_path / "run", "--resume", "0")
    assert main([*command, "max_iter=2"]) == status.DONE
    assert main([*command, "max_iter=3"]) == status.USER_ERROR
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main([*command, "max_iter=3"]) == status.DONE
    assert "continues from epoch_00000_iteration_000000002_checkpoint.pt" in capsys.readouterr().out
