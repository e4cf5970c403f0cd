"""Which ranks there are, by the environment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from imagier.errors import UserError
from imagier.train.launcher import PORTS, Launch, count_local_ranks, read_launch

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "2000"}

SRUN = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "2",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


def test_torchrun_says_it_also_within_a_step_of_slurm() -> None:
    assert read_launch(TORCHRUN) == read_launch({**SRUN, **TORCHRUN}) == Launch(1, 4, 1)


def test_a_step_of_several_processes_is_one_run() -> None:
    found = read_launch(SRUN)
    assert (found.rank, found.world, found.local_rank) == (3, 4, 1)
    assert found.rendezvous is not None
    host, port = found.rendezvous
    assert host == "gpu03"
    assert port in PORTS
    assert read_launch({**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).rendezvous == (host, port)
    assert read_launch({**SRUN, "SLURM_STEP_ID": "3"}).rendezvous != (host, port)
    assert count_local_ranks(4, SRUN) == 2


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("a", "a"),
        ("a-1,b", "a-1"),
        ("n[007,9-12]-ib,m", "n007-ib"),
        ("n[1-3],m", "n1"),
        ("r[01-2]n[3,4],m[5]", "r01n3"),
        ("gpu.example.org", None),
    ],
)
def test_the_first_host_of_a_list_is_where_they_meet(hosts: str, first: str | None) -> None:
    found = read_launch({**SRUN, "SLURM_STEP_NODELIST": hosts}).rendezvous
    assert found is not None and found[0] == (first or hosts)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # the script of sbatch, the shell of salloc
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # srun -n 1
    ],
)
def test_a_process_that_was_started_alone_is_alone(environment: dict[str, str]) -> None:
    assert read_launch(environment) == Launch()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("WORLD_SIZE", "0", "bad-environment"),
        ("WORLD_SIZE", "abc", "bad-environment"),
        ("WORLD_SIZE", "-2", "bad-environment"),
        ("RANK", "4", "bad-environment"),
        ("RANK", "", "no-rendezvous"),
        ("LOCAL_RANK", "x", "bad-environment"),
        ("MASTER_PORT", "70000", "bad-environment"),
        ("MASTER_PORT", "http", "bad-environment"),
        ("MASTER_ADDR", "no such host", "bad-environment"),
        ("MASTER_ADDR", "a" * 300, "bad-environment"),
        ("MASTER_ADDR", "", "no-rendezvous"),
    ],
)
def test_variables_that_make_no_sense_are_told(name: str, value: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        read_launch({**TORCHRUN, name: value})
    assert caught.value.code == code
    assert name in caught.value.what


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"])
def test_variables_of_slurm_that_make_no_sense_are_told(name: str) -> None:
    with pytest.raises(UserError, match=name):
        read_launch({**SRUN, name: "[]"})


MEET = """\
import os, sys
os.environ.update(SLURM_STEP_NUM_TASKS="2", SLURM_STEP_NUM_NODES="1", SLURM_JOB_ID=sys.argv[2], SLURM_STEP_ID="0")
os.environ.update(SLURM_PROCID=sys.argv[1], SLURM_LOCALID=sys.argv[1])
from imagier.train import runtime

found = runtime.start("cpu", single=False, local_rank=None)
print(found.all_reduce_sum(10 ** found.rank))
runtime.stop(found)
"""


@pytest.mark.slow  # imports torch twice
def test_the_processes_of_a_step_meet() -> None:
    pipes = {"stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", MEET, rank, "4711"], **pipes) for rank in "01"]  # type: ignore[call-overload]
    assert [process.communicate(timeout=120)[0] for process in started] == ["11\n", "11\n"]
