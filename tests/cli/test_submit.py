"""`imagier submit`: a training in the queue of a cluster."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
import submitit
import tiny

from imagier.cli import main
from imagier.errors import UserError
from imagier.run import status
from imagier.run.options import RunOptions
from imagier.run.submit import TrainJob


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))


def command(folder: Path, name: str, body: str) -> None:
    script = folder / name
    script.write_text(f"#!{sys.executable}\nimport sys, shutil\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with Slurm's commands; the returned file is the script that was queued."""
    folder, script = tmp_path / "bin", tmp_path / "queued.sh"
    folder.mkdir()
    command(folder, "sbatch", f"shutil.copy(sys.argv[-1], {str(script)!r})\nprint('Submitted batch job 17')")
    command(folder, "srun", "")
    monkeypatch.setenv("PATH", str(folder))
    return script


def test_what_the_cluster_must_know_is_in_the_script(
    config: Path, tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--time", "3h", "--nodes", "2", "--gpus", "4", "--partition", "fast", "--account", "lab", "--mem_gb", "64"]
    flags += ["--folder", str(tmp_path / "jobs"), "--name", "faces"]
    train = ["--config", str(config), "--logdir", str(tmp_path / "run"), "max_iter=2"]
    assert main(["submit", *flags, "--", *train]) == status.DONE
    script = slurm.read_text()
    expected = ("time=180", "nodes=2", "gpus-per-node=4", "ntasks-per-node=4", "partition=fast", "account=lab")
    for option in (*expected, "mem=64GB", "cpus-per-task=8", "job-name=faces", "requeue"):
        assert f"#SBATCH --{option}\n" in script
    assert "job 17 is queued" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "{config}"], "--logdir: missing: a job that is queued again must find its run"),
        (["--config", "{config}", "--logdir", "{run}", "gen.num_filter=3"], "did you mean 'num_filters'?"),
    ],
)
def test_nothing_is_queued_that_could_not_train(
    config: Path, tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    words = [word.format(config=config, run=tmp_path / "run") for word in words]
    assert main(["submit", "--folder", str(tmp_path / "jobs"), "--", *words]) == status.USER_ERROR
    assert told in capsys.readouterr().err
    assert not slurm.exists()


def test_a_machine_without_slurm_is_told(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["--config", str(config), "--logdir", str(tmp_path / "run")]
    assert main(["submit", "--folder", str(tmp_path / "jobs"), "--", *words]) == status.USER_ERROR
    assert "--cluster slurm" in capsys.readouterr().err


def test_a_job_that_fails_is_a_failed_job(config: Path, tmp_path: Path) -> None:
    job = TrainJob(tmp_path / "none.yaml", RunOptions(logdir=tmp_path / "run"), (), job_s=60, ranks=1)
    with pytest.raises(UserError, match="cannot read the config"):
        job()


@pytest.mark.slow
def test_a_job_trains(config: Path, tmp_path: Path) -> None:
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    options = RunOptions(logdir=tmp_path / "run", device="cpu")
    job = executor.submit(TrainJob(config, options, ("max_iter=2",), job_s=60, ranks=1))
    assert job.result() == "done"
    assert "finished at iteration 2" in job.stdout()
    assert list((tmp_path / "run").glob("*_iteration_000000002_checkpoint.pt"))
