"""Names of options in errors: as in Python below the command line, as flags on it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import tiny
import torch

from imagier.cli import demo, evaluate, export, infer, main, metrics, submit, sweep, train, tune, verify_resume
from imagier.cli.flags import FLAGS, name_flags
from imagier.errors import UserError
from imagier.run import RunOptions
from imagier.run import train as train_from_python


def test_every_flag_is_one_of_a_command() -> None:
    known = set()
    for command in (train, infer, export, demo, evaluate, metrics, submit, sweep, tune, verify_resume):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        known |= {flag for action in parser._actions for flag in action.option_strings}
    assert {flag.partition(" ")[0] for flag in FLAGS.values()} <= known


def test_options_become_flags_and_other_words_stay() -> None:
    error = UserError(
        "`dry_run` of `images`", where="device cuda", advice="`resume=False`, `logdir` or logdir", code="some"
    )
    found = name_flags(error)
    assert (found.what, found.where, found.code) == ("--dry-run of `images`", "--device cuda", "some")
    assert found.advice == "--resume 0, --logdir or logdir"
    other = UserError("x", where="my.yaml:3: seed")
    assert str(name_flags(other)) == str(other)


def mistake(config: Path | None, options: RunOptions) -> UserError:
    with pytest.raises(UserError) as caught:
        train_from_python(config, options)
    assert "--" not in str(caught.value)
    return caught.value


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["train", *map(str, words)]) == 2
    return capsys.readouterr().err


def test_a_missing_config_is_one_in_python_and_a_flag_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake(None, RunOptions()).where == "config"
    said = refused(capsys)
    assert said.startswith("--config: ") and "--logdir" in said


def test_so_is_a_device_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny.write_config(tmp_path / "tiny.yaml", tmp_path / "none")
    missing = "cuda" if not torch.cuda.is_available() else "mps"
    assert mistake(config, RunOptions(device=missing)).where == f"device {missing}"
    assert refused(capsys, "--config", config, "--device", missing).startswith(f"--device {missing}: ")


def test_so_is_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data", train=2, val=1), max_iter=1)
    saved, other = (train_from_python(config, RunOptions(logdir=tmp_path / name, device="cpu")) for name in "ab")
    options = {"logdir": other.logdir, "checkpoint": saved.checkpoint, "device": "cpu"}
    found = mistake(config, RunOptions(**options))  # type: ignore[arg-type]
    assert (found.where, found.code) == (str(other.logdir), "logdir-in-use")
    assert "`logdir`" in found.advice and "`resume=True`" in found.advice
    said = refused(
        capsys, "--config", config, *(word for name, value in options.items() for word in (f"--{name}", value))
    )
    assert "--logdir" in said and "--resume 1" in said
