"""What the system refuses a run is one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from imagier.errors import RunError
from imagier.run.options import RunOptions
from imagier.run.process import open_runtime

OPTIONS = RunOptions(device="cpu")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("Too many open files. Communication with the workers is no longer possible"), "ulimit -n"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "ulimit -v"),
        (MemoryError(), "ulimit -v"),
        (RuntimeError("could not create a primitive"), "ulimit -v"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "trainer.accumulate"),
    ],
)
def test_what_a_limit_refuses_names_the_limit(error: Exception, word: str) -> None:
    with pytest.raises(RunError, match=word), open_runtime(OPTIONS):
        raise error


def test_torchs_own_words_for_memory_that_it_does_not_get_are_known() -> None:
    with pytest.raises(RunError, match="out of memory"), open_runtime(OPTIONS):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_are_passed_on() -> None:
    for error in (
        OSError(errno.EIO, "Input/output error"),
        RuntimeError("a bug"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        RunError("the loader ran out of memory; our own advice"),
    ):
        with pytest.raises(type(error)) as caught, open_runtime(OPTIONS):
            raise error
        assert caught.value is error and error.__cause__ is None


def start(limit: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """A dry run in a shell with a limit."""
    config = tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))
    command = f"{limit} && exec {sys.executable} -m imagier train {config} --device cpu --dry-run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=100)


def test_a_limit_of_open_files_that_no_run_could_keep_to_is_told_at_the_start(tmp_path: Path) -> None:
    done = start("ulimit -n 32", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "ulimit -n" in done.stderr


def test_a_soft_limit_of_open_files_is_raised(tmp_path: Path) -> None:
    done = start("ulimit -Sn 40", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
