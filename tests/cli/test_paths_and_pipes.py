"""What was probably meant by a mistyped word or path; lists with a byte order mark; pipes that end early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from images import write

from imagier import __version__
from imagier.cli import get_parser, main
from imagier.cli.data.files import read_keys
from imagier.cli.infer import _split_overrides
from imagier.train.checkpoint_files import read_pointer

ROOT = Path(__file__).parents[2]


def read_errors(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    """What goes to stderr for a mistake."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as error:
        status = error.code
    assert status == 2
    return capsys.readouterr().err.splitlines()


def test_a_mistyped_folder_of_a_run_is_named_with_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.write_config(tmp_path / "small.yaml", tmp_path)
    (tmp_path / "logs/mine").mkdir(parents=True)
    typo, meant = tmp_path / "logs/mien", tmp_path / "logs/mine"
    out = ["--output_dir", tmp_path / "out"]
    for words in (["infer", *out], ["infer", "--config", config, *out], ["train"]):
        (line,) = read_errors(capsys, *words, "--logdir", typo)
        assert line == f"--logdir {typo}: no such folder; did you mean {meant}?"
    (line,) = read_errors(capsys, "infer", "--logdir", tmp_path / "log/mine", *out)
    assert line.endswith(f"did you mean {tmp_path}/logs/mine?")
    (line,) = read_errors(capsys, "infer", "--logdir", meant, *out)
    assert line.startswith(f"--logdir {meant}: holds no config.yaml")
    (line,) = read_errors(capsys, "infer", "--config", config, "--logdir", meant, *out, "--device", "cpu")
    assert line.startswith(f"--logdir {meant}: holds no checkpoint")


def test_a_mistyped_config_or_checkpoint_is_named_with_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.write_config(tmp_path / "small.yaml", tmp_path)
    write(tmp_path / "last.pt", b"x")
    typo = tmp_path / "smal.yaml"
    for words in (["train"], ["data", "check"], ["verify-resume"]):
        (line,) = read_errors(capsys, *words, typo)
        assert line.endswith(f"; did you mean {config}?")
    out = ["--output_dir", tmp_path / "out"]
    for words in (["--config", config], []):
        (line,) = read_errors(capsys, "infer", *words, "--checkpoint", tmp_path / "lst.pt", *out)
        assert line == f"{tmp_path}/lst.pt: no such checkpoint; did you mean {tmp_path}/last.pt?"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian"], "train"),
        (["data", "chekc"], "check"),
        (["infer", "--outptu", "x", "--output_dir", "y"], "--output"),
        (["infer", "--output", "y", "--format", "pgn"], "png"),
    ],
)
def test_a_mistyped_word_is_told_with_what_was_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_errors(capsys, *words)[-1].endswith(f"; did you mean {meant}?")


def test_the_config_may_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_data(tmp_path / "data", train=4, val=2)
    config = tiny.write_config(tmp_path / "small.yaml", data)
    words = ["--dry-run", "--logdir", tmp_path / "log", "--device", "cpu"]
    assert main([str(word) for word in ["train", config, *words, "max_iter=7"]]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed[printed.index("\nlogging_iter") :].partition("\n\n")[0])["max_iter"] == 7


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert (stopped.value.code, capsys.readouterr().out) == (0, f"imagier {__version__}\n")


def test_completion_knows_the_flags_of_all_commands() -> None:
    (commands,) = [action for action in get_parser()._actions if action.dest == "command"]
    assert "--style" in commands.choices["infer"]._option_string_actions
    assert "check" in commands.choices["data"]._actions[-1].choices


def test_overrides_behind_inputs_are_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.b=c", b"x")
    words = ["x.png", "seg_maps=dir", "a.b=c", "inference_args.a2b=false"]
    assert _split_overrides(words) == (words[:3], words[3:])


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf./0\nseq/1.jpg\n")
    assert read_keys(str(path), {"images": "png"}) == ["./0", "seq/1"]
    write(tmp_path / "latest_checkpoint.txt", b"\xef\xbb\xbfone.pt")
    assert read_pointer(tmp_path) == tmp_path / "one.pt"


@pytest.mark.parametrize("words", [["schema"], ["train", "--help"]])
def test_a_pipe_that_nobody_reads_ends_a_command_quietly(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "imagier", *words], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, timeout=60
    )
    os.close(writer)
    assert ended.stderr == b""
    assert ended.returncode == 141 or "--help" in words  # of which argparse itself ignores that
