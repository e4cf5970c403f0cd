"""What the package logs is what a user of the command line reads, and only there."""

from __future__ import annotations

import io
import logging
import sys

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from imagier.cli import main
from imagier.run.log_lines import Output, print_logs
from imagier.run.process import mute_other_ranks
from imagier.train.runtime import Runtime

LOGGER = logging.getLogger("imagier.train.some_file")
CPU = torch.device("cpu")


def test_messages_are_printed_as_they_are_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with print_logs():
        LOGGER.info("100 % of [bold] it")
        LOGGER.warning("careful")
        LOGGER.debug("a detail")
    assert capsys.readouterr() == ("100 % of [bold] it\ncareful\n", "")


def test_before_and_after_a_command_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    package = logging.getLogger("imagier")
    before = package.level, list(package.handlers)
    LOGGER.info("before")
    assert main(["schema", "--out", "/dev/null"]) == 0
    LOGGER.info("after")
    assert (package.level, package.handlers) == before
    assert capsys.readouterr() == ("", "")


def test_only_warnings_and_errors_of_other_ranks_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with print_logs():
        for rank in range(2):
            with mute_other_ranks(Runtime(CPU, rank=rank, world=2)):
                LOGGER.info(f"rank {rank} goes on")
                LOGGER.warning(f"rank {rank} is worried")
        LOGGER.info("over")
    assert capsys.readouterr().out.splitlines() == [
        "rank 0 goes on",
        "rank 0 is worried",
        "rank 1 is worried",
        "over",
    ]


def test_lines_appear_above_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the bar is drawn again below each line; nothing is written over it."""
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    with print_logs(), Progress(console=Console(force_terminal=True, width=80), auto_refresh=False) as bar:
        bar.add_task("the bar", total=10)
        bar.refresh()
        LOGGER.info("a [red]line")
    line = terminal.getvalue().index("a [red]line\n")
    clear_line = "\x1b[2K"
    assert clear_line in terminal.getvalue()[:line]
    assert "the bar" in terminal.getvalue()[line:]


def test_a_handlers_line_within_another_is_dropped_and_any_other_error_is_raised() -> None:
    class Failing(io.StringIO):
        def write(self, text: str) -> int:
            raise RuntimeError(text)

    output = Output(Failing(), is_vital=False)
    output.write("reentrant call inside <_io.BufferedWriter name='<stdout>'>")
    with pytest.raises(RuntimeError, match="a bug"):
        output.write("a bug")
