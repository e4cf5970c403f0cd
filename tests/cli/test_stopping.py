"""When a run ends, and how: signals, time limits, Slurm."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny

from imagier.cli import main
from imagier.run import status, stopping
from imagier.run.stopping import SLURM_MARGIN_S, SlurmJob, Stop, handle_signals
from imagier.train import checkpoint_files
from imagier.train.hooks.console import Console
from imagier.train.trainer import Outcome, Progress, Trainer


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))


def train(config: Path, logdir: Path, *words: str) -> int:
    return main(["train", "--config", str(config), "--logdir", str(logdir), "--device", "cpu", *words])


def steps_saved(logdir: Path) -> list[int]:
    return sorted(int(path.name.split("_")[3]) for path in logdir.glob("*_checkpoint.pt"))


def send(monkeypatch: pytest.MonkeyPatch, number: int, *at_steps: int) -> None:
    """Sends this process a signal after some iterations."""

    def after_step(self: Console, trainer: Trainer, progress: Progress) -> None:
        if progress.step in at_steps:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Console, "after_step", after_step)


def test_a_run_is_done_by_iterations_or_epochs() -> None:
    stop = Stop(10, 3)
    assert [stop(step, 0) for step in (9, 10, 11)] == [Outcome.GO_ON, Outcome.DONE, Outcome.DONE]
    assert [stop(0, epoch) for epoch in (2, 3)] == [Outcome.GO_ON, Outcome.DONE]


def test_a_run_at_its_end_is_done_even_if_it_was_asked_to_stop() -> None:
    stop = Stop(10, 3)
    stop.on_signal(signal.SIGTERM, None)
    assert [stop(9, 0), stop(10, 0)] == [Outcome.INTERRUPTED, Outcome.DONE]


def test_sigusr1_saves_once_and_the_run_goes_on(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(monkeypatch, signal.SIGUSR1, 2)
    assert train(experiment, tmp_path / "run", "max_iter=6") == status.DONE
    assert steps_saved(tmp_path / "run") == [3, 6]


def test_one_ctrl_c_saves_and_stops(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send(monkeypatch, signal.SIGINT, 2)
    assert train(experiment, tmp_path / "run", "max_iter=6") == status.INTERRUPTED
    assert steps_saved(tmp_path / "run") == [3]
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("stopping after this iteration, and saving; Ctrl-C again stops at") for line in lines)
    assert lines[-1] == f"saved iteration 3 in {tmp_path / 'run'}; continue with the same command"


def press_twice(self: Console, trainer: Trainer, progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def test_the_signal_of_one_ctrl_c_may_come_twice(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stopping, "ONE_PRESS_S", 3600)  # a step may take more than a second
    monkeypatch.setattr(Console, "after_step", press_twice)
    assert train(experiment, tmp_path / "run", "max_iter=6") == status.INTERRUPTED
    assert steps_saved(tmp_path / "run") == [2]
    assert capsys.readouterr().out.count("stopping after this iteration") == 1


def test_a_second_ctrl_c_counts_a_second_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, now = Stop(10, 3), [100.0]
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for now[0] in (100.0, 100.01, 100.9):
        stop.on_signal(signal.SIGINT, None)
    assert stop(1, 0) is Outcome.INTERRUPTED
    now[0] = 101.1
    with pytest.raises(KeyboardInterrupt):
        stop.on_signal(signal.SIGINT, None)


def test_a_ctrl_c_after_another_signal_is_the_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop = Stop(10, 3)
    stop.on_signal(signal.SIGTERM, None)
    stop.on_signal(signal.SIGINT, None)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("handler", "ended_with", "saved"),
    [(signal.SIG_DFL, status.INTERRUPTED, [3]), (signal.SIG_IGN, status.DONE, [6])],
    ids=["plain", "nohup"],
)
def test_a_terminal_that_is_closed_saves_and_stops_but_not_under_nohup(
    experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    handler: signal.Handlers,
    ended_with: int,
    saved: list[int],
) -> None:
    send(monkeypatch, signal.SIGHUP, 2)
    before = signal.signal(signal.SIGHUP, handler)
    try:
        assert train(experiment, tmp_path / "run", "max_iter=6") == ended_with
    finally:
        signal.signal(signal.SIGHUP, before)
    assert steps_saved(tmp_path / "run") == saved


def test_two_ctrl_c_stop_at_once_and_save_nothing(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stopping, "ONE_PRESS_S", -1)
    monkeypatch.setattr(Console, "after_step", press_twice)
    assert train(experiment, tmp_path / "run", "max_iter=6") == status.KILLED
    assert steps_saved(tmp_path / "run") == []
    assert capsys.readouterr().out.splitlines()[-1] == "stopped at once; nothing was saved yet"
    monkeypatch.undo()
    assert train(experiment, tmp_path / "run", "max_iter=3") == status.DONE
    monkeypatch.setattr(stopping, "ONE_PRESS_S", -1)
    monkeypatch.setattr(Console, "after_step", press_twice)
    assert train(experiment, tmp_path / "run", "max_iter=6") == status.KILLED
    last = tmp_path / "run" / "epoch_00000_iteration_000000003_checkpoint.pt"
    expected = f"stopped at once; the last checkpoint is {last}; continue with the same command"
    assert capsys.readouterr().out.splitlines()[-1] == expected


def test_a_run_in_a_folder_of_its_own_making_says_how_it_continues(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command would begin anew."""
    send(monkeypatch, signal.SIGINT, 1)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(experiment), "--device", "cpu"]) == status.INTERRUPTED
    (logdir,) = (tmp_path / "logs").iterdir()
    expected = f"saved iteration 2 in logs/{logdir.name}; continue with --logdir logs/{logdir.name} alone"
    assert capsys.readouterr().out.splitlines()[-1] == expected
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--logdir", f"logs/{logdir.name}", "--device", "cpu", "max_iter=3"]) == status.DONE
    assert steps_saved(logdir) == [2, 3]


def test_a_run_that_the_same_command_would_not_continue_says_how_it_continues(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send(monkeypatch, signal.SIGINT, 1)
    logdir = tmp_path / "my run"
    assert train(experiment, logdir, "max_iter=6", "--resume", "0") == status.INTERRUPTED
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"continue with --logdir '{logdir}' alone")


def test_signals_are_as_before_once_a_run_is_over() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in numbers]
    with handle_signals(Stop(1, 1)):
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before


def test_under_torchrun_an_interrupted_run_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert status.choose_interrupted() == status.INTERRUPTED == os.EX_TEMPFAIL
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert status.choose_interrupted() == status.DONE


def test_a_slurm_job_is_over_a_margin_before_its_end() -> None:
    now = time.time()
    assert SlurmJob("1", now + 3600, now=now).stops == now + 3600 - SLURM_MARGIN_S
    assert SlurmJob("1", now + 60, now=now).stops == now + 30
    assert SlurmJob("1", now - 1, now=now).is_over()
    assert not SlurmJob("1", now + 3600, now=now).is_over()


def test_the_environment_names_a_slurm_job() -> None:
    ends = {"SLURM_JOB_END_TIME": "2000000000"}
    job = SlurmJob.from_environment({"SLURM_JOB_ID": "17", **ends})
    task = SlurmJob.from_environment(
        {"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2", **ends}
    )
    assert job is not None and job.job_id == "17"
    assert task is not None and task.job_id == "17_2"
    assert SlurmJob.from_environment({}) is None
    assert SlurmJob.from_environment({"SLURM_JOB_ID": "17"}) is None


def fake_scontrol(folder: Path, body: str) -> Path:
    """A command of that name, which is a script."""
    folder.mkdir()
    script = folder / "scontrol"
    script.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder


def test_at_the_end_of_its_slurm_job_a_run_saves_and_queues_the_job_again(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = tmp_path / "called"
    commands = fake_scontrol(tmp_path / "bin", f"open({str(called)!r}, 'a').write(' '.join(sys.argv[1:]))")
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 6))  # time for a step after the imports

    assert train(experiment, tmp_path / "run", "max_iter=1000000") == status.INTERRUPTED
    assert len(steps_saved(tmp_path / "run")) == 1
    assert called.read_text() == "requeue 17"
    assert "job 17 is queued again, and continues from here" in capsys.readouterr().out


def job_that_ends_soon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm job around this process; the file that is there once the job was queued again."""
    called = folder / "called"
    monkeypatch.setenv("PATH", str(fake_scontrol(folder / "bin", f"open({str(called)!r}, 'a')")))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 6))  # time for a step after the imports
    return called


def test_a_job_whose_last_state_is_not_on_the_disk_is_not_queued_again(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would do the same again, and again."""

    def full(path: Path, state: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "write_state", full)
    called = job_that_ends_soon(tmp_path, monkeypatch)
    assert train(experiment, tmp_path / "run", "max_iter=1000000") == status.FAILED
    assert not called.exists()


def test_a_job_without_a_logdir_is_not_queued_again(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would begin anew in another folder, and again."""
    called = job_that_ends_soon(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    words = ["train", "--config", str(experiment), "--device", "cpu", "max_iter=1000000"]
    assert main(words) == status.INTERRUPTED
    assert "then the job is not queued again" in capsys.readouterr().out
    assert not called.exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (None, "there is no scontrol here: job 17 is not queued again; submit it once more"),
        ("sys.exit('Requested operation is disabled')", "(Requested operation is disabled)"),
    ],
)
def test_a_job_that_cannot_be_queued_again_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, told: str
) -> None:
    folder = tmp_path / "bin" if body is None else fake_scontrol(tmp_path / "bin", body)
    monkeypatch.setenv("PATH", str(folder))
    assert told in SlurmJob("17", 0).requeue()


def test_a_run_that_was_stopped_by_its_time_limit_is_not_queued_again(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = tmp_path / "called"
    commands = fake_scontrol(tmp_path / "bin", f"open({str(called)!r}, 'a')")
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    assert train(experiment, tmp_path / "run", "max_iter=1000", "--max_time", "0.01") == status.INTERRUPTED
    assert not called.exists()
