"""One run at a time in a log folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from imagier.errors import UserError
from imagier.run import folder_lock
from imagier.run.folder_lock import NAME, lock_folder
from imagier.train.runtime import Runtime

CPU = Runtime(torch.device("cpu"))

HOLD = """\
import sys, torch
from pathlib import Path
from imagier.run.folder_lock import lock_folder
from imagier.train.runtime import Runtime

with lock_folder(Path(sys.argv[1]), Runtime(torch.device("cpu"))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder `run`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_told_who_is_there_until_that_one_is_killed(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    for _ in range(2):  # the failure itself frees nothing
        with pytest.raises(UserError) as caught, lock_folder(tmp_path / "run", CPU):
            pass
        assert caught.value.code == "folder-locked"
        assert f"process {other.pid} on {socket.gethostname()}" in caught.value.what
    other.kill()
    other.wait()
    with lock_folder(tmp_path / "run", CPU):
        assert (tmp_path / "run" / NAME).read_text() == f"{os.getpid()} {socket.gethostname()}"


def test_a_second_run_may_come_once_the_first_has_ended(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.communicate("")
    assert not (tmp_path / "run").exists(), "a run that wrote nothing leaves nothing"
    with lock_folder(tmp_path / "run", CPU):
        (tmp_path / "run" / "config.yaml").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_lock_file_that_was_removed_meanwhile_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the run before ends between our opening its file and our locking it."""
    lock, path = fcntl.lockf, tmp_path / NAME
    path.touch()

    def lock_late(file: object, how: int) -> None:
        if path.exists() and path.stat().st_size == 0 and not called:
            path.unlink()
        called.append(how)
        lock(file, how)  # type: ignore[arg-type]

    called: list[int] = []
    monkeypatch.setattr(folder_lock.fcntl, "lockf", lock_late)
    with lock_folder(tmp_path, CPU):
        assert len(called) == 2
        assert path.exists()


def test_a_disk_without_locks_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder_lock.fcntl, "lockf", fail)
    with lock_folder(tmp_path, CPU):
        pass
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_second_thread_is_kept_out_too_and_the_first_keeps_its_lock(tmp_path: Path) -> None:
    attempt = f"import fcntl; fcntl.lockf(open({str(tmp_path / 'run' / NAME)!r}, 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with lock_folder(tmp_path / "run", CPU):
        with pytest.raises(UserError) as caught, lock_folder(tmp_path / "x" / ".." / "run", CPU):
            pass
        assert caught.value.code == "folder-locked" and f"process {os.getpid()} " in caught.value.what
        assert b"BlockingIOError" in subprocess.run([sys.executable, "-c", attempt], capture_output=True).stderr
    with lock_folder(tmp_path / "run", CPU):
        pass


def test_on_a_full_disk_the_runs_own_error_is_raised(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(ZeroDivisionError), lock_folder(tmp_path, CPU):
            raise ZeroDivisionError
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_name_that_no_disk_takes_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught, lock_folder(tmp_path / ("x" * 300), CPU):
        pass
    assert caught.value.code == "unwritable-logdir"


@pytest.mark.parametrize("name", ["commands.txt", "latest_checkpoint.txt"])
def test_what_is_in_the_way_of_a_file_is_told_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError) as caught, lock_folder(tmp_path, CPU):
        pass
    assert (caught.value.code, caught.value.where) == ("in-the-way", str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("wrong", ["file", "lock"])
def test_what_is_in_the_way_of_a_folder_is_told(tmp_path: Path, wrong: str) -> None:
    if wrong == "file":
        (tmp_path / "run").touch()
    else:
        (tmp_path / "run" / NAME).mkdir(parents=True)
    with pytest.raises(UserError) as caught, lock_folder(tmp_path / "run", CPU):
        pass
    assert (caught.value.code, caught.value.where) == ("unwritable-logdir", str(tmp_path / "run"))
