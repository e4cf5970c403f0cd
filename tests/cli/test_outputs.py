"""Outputs that fail: a full disk, a closed terminal, a pipe that nobody reads. They end no run."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest
import tiny

from imagier.cli import main
from imagier.run import status
from imagier.run.log_lines import Output
from imagier.train.hooks import files

FULL = Path("/dev/full")
SAVED = "epoch_00000_iteration_000000002_checkpoint.pt"


def open_full() -> TextIO:
    return FULL.open("w")


def open_unread_pipe() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def open_closed_terminal() -> TextIO:
    ours, theirs = pty.openpty()
    os.close(ours)
    return os.fdopen(theirs, "w")


FAILING = {"No space left on device": open_full, "Broken pipe": open_unread_pipe, "Input/output": open_closed_terminal}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    config = tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data", train=4, val=2))
    return ["train", str(config), "--logdir", str(tmp_path / "run"), "--device", "cpu", "max_iter=2", "logging_iter=1"]


@pytest.mark.parametrize("reason", FAILING)
def test_a_run_whose_stdout_fails_trains_to_its_end(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    if reason.startswith("No space") and not FULL.exists():
        pytest.skip("only Linux has a full device")
    stream = FAILING[reason]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(words) == status.DONE
    stream.close()  # which would raise, if something were left in its buffer
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"stdout cannot be written to: {reason}") and line.endswith("; the run continues")
    assert (tmp_path / "run" / SAVED).exists()
    assert [record["step"] for record in files.read(tmp_path / "run") if "gen_update/total" in record] == [1, 2]


@pytest.mark.parametrize("reason", FAILING)
def test_a_command_whose_result_cannot_be_printed_fails(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    if reason.startswith("No space") and not FULL.exists():
        pytest.skip("only Linux has a full device")
    for command in (["schema"], ["explain", "gen.type"], [*words, "--dry-run"]):
        stream = FAILING[reason]()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            ended = main(command)
        stream.close()
        lines = capsys.readouterr().err.splitlines()
        if reason == "Broken pipe":
            assert (ended, lines) == (status.BROKEN_PIPE, [])
        else:
            assert (ended, len(lines)) == (status.FAILED, 1)
            assert lines[0].startswith(f"stdout cannot be written to: {reason}")


@pytest.mark.parametrize("stderr", FAILING)
def test_a_mistake_has_its_status_even_if_it_cannot_be_told(monkeypatch: pytest.MonkeyPatch, stderr: str) -> None:
    stream = FAILING[stderr]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert main(["train", "no such.yaml"]) == status.USER_ERROR
    stream.close()


def test_outputs_that_were_closed_before_the_start_are_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        assert main(["schema"]) == status.DONE
        assert main(["train", "no such.yaml"]) == status.USER_ERROR


@pytest.mark.slow
@pytest.mark.parametrize("reason", FAILING)
def test_python_itself_does_not_complain_about_failing_outputs_at_its_end(
    words: list[str], tmp_path: Path, reason: str
) -> None:
    stream = FAILING[reason]()
    environment = {**os.environ, "PYTHONFAULTHANDLER": ""}
    for command, expected in ((words, 0), (["schema"], 141 if reason == "Broken pipe" else 1)):
        started = [sys.executable, "-m", "imagier", *command]
        ended = subprocess.run(started, stdout=stream, stderr=stream, env=environment, timeout=120)
        assert ended.returncode == expected
        ended = subprocess.run(started, stdout=stream, stderr=subprocess.PIPE, env=environment, timeout=120)
        assert b"Traceback" not in ended.stderr and b"Exception ignored" not in ended.stderr


@pytest.mark.slow
def test_a_terminal_that_is_closed_while_it_shows_a_bar_ends_no_run(words: list[str], tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "imagier", *words]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as started:
        os.close(theirs)
        shown = b""
        while b"iter 1/2" not in shown:
            shown += os.read(ours, 1 << 16)
        os.close(ours)
        assert started.wait(timeout=120) == status.DONE
    assert b"\x1b[?25l" in shown, "the cursor is hidden beside a bar"
    assert (tmp_path / "run" / SAVED).exists()


class Refusing:
    """A stream without room, until there is some."""

    def __init__(self) -> None:
        self.has_room = False
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        if not self.has_room:
            raise OSError(28, "No space left on device")
        self.lines.append(text)

    def flush(self) -> None: ...


def test_lines_are_written_again_once_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    stream, other = Refusing(), Refusing()
    other.has_room = True
    output = Output(stream, is_vital=False, other=Output(other, is_vital=False))  # type: ignore[arg-type]
    for text in ("one\n", "two\n"):
        assert output.write(text) == len(text)
    stream.has_room = True
    output.write("three\n")
    assert stream.lines == ["three\n"]
    assert other.lines == ["stdout cannot be written to: No space left on device; the run continues\n"]


def test_a_signal_may_say_something_in_the_middle_of_a_line() -> None:
    """Python refuses to write to a stream that is being written to, which must not end the run."""
    written: list[bytes] = []

    class Slow(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            if not written:
                written.append(bytes(data))
                output.write("of the signal")
                output.flush()
            return len(data)

    output = Output(io.TextIOWrapper(io.BufferedWriter(Slow())), is_vital=True)  # type: ignore[type-var]
    output.write("a line")
    output.flush()
    assert written == [b"a line"]
