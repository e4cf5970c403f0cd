"""`imagier init`: folders to start in, whose configs fit the data that they ask for."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from contract.experiment import METHODS
from doc_blocks import Block
from doc_blocks import blocks as blocks_of
from marks import mark_slow
from starting_data import write_files

from imagier.cli import main
from imagier.run import status
from imagier.tools.init_folder import list_templates

ROOT = Path(__file__).parents[2]
TEMPLATES = list_templates()
STARTING = [name for name, template in TEMPLATES.items() if not template.is_example]

SMALL = {"286": "144", "256": "128", "512": "256"}
"""Sizes of images, and what stands for them in a test."""


def init(folder: Path, name: str) -> Path:
    """The config that the command writes."""
    assert main(["init", name, str(folder)]) == status.DONE
    (config,) = folder.glob("*.yaml")
    return config


def shrink(text: str) -> str:
    """A config with narrow networks and smaller images."""
    text = re.sub(r"\bmax_num_filters: \d+", "max_num_filters: 64", text)
    text = re.sub(r"\b(num_filters(?:_mlp)?): \d+", r"\1: 4", text)
    return re.sub("|".join(SMALL), lambda size: SMALL[size[0]], text)


def command_block(readme: Path) -> Block:
    (block,) = (block for block in blocks_of(readme) if block.language == "bash")
    return block


def test_every_method_has_a_config_to_start_from() -> None:
    of_generators = {yaml.safe_load(TEMPLATES[name].text)["gen"]["type"] for name in STARTING}
    assert set(STARTING) == of_generators == {*METHODS, "coco_funit"}


def test_every_example_of_the_repository_can_be_had() -> None:
    paths = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    examples = {path.with_suffix("").as_posix() for path in paths if path.parts[0] != "start"}
    assert {name for name, template in TEMPLATES.items() if template.is_example} == examples


@pytest.mark.parametrize("name", mark_slow(STARTING, but=("spade", "unit")))
def test_a_starting_config_trains_on_files_where_it_says_that_they_go(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A dry run with narrow networks, which computes an iteration and an image of a held-out sample."""
    config = init(tmp_path, name)
    config.write_text(shrink(config.read_text()))
    write_files(TEMPLATES[name], tmp_path)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="imagier"):
        assert main(["train", "--config", config.name, "--dry-run", "--logdir", "logs/new", "--device", "cpu"]) == 0
    assert "too large" not in caplog.text
    assert re.search(r"parameters gen [\d,]+, dis [\d,]+; \d+ samples, \d+ held out", caplog.text)


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTING)
def test_a_dry_run_accepts_a_starting_config_as_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = init(tmp_path, name)
    write_files(TEMPLATES[name], tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", config.name, "--workers", "1"]) == 0
    assert main(["train", "--config", config.name, "--dry-run", "--logdir", "logs/new", "--device", "cpu"]) == 0


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_folder_says_what_to_do_next(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of README.md, which init prints too, name the config as it lies there; none names a path of ours."""
    config = init(tmp_path / "new", name)
    printed = capsys.readouterr().out
    text = (tmp_path / "new" / "README.md").read_text()
    commands = command_block(tmp_path / "new" / "README.md").text.splitlines()
    assert [line for line in commands if f"  {line}" in printed.splitlines()] == commands
    programs = [shlex.split(line)[:2] for line in commands]
    assert programs == [["imagier", "data"], ["imagier", "train"], ["imagier", "infer"]]
    monkeypatch.chdir(tmp_path / "new")
    named = {word for line in commands for word in shlex.split(line) if word.endswith(".yaml")}
    assert named == {config.name}
    assert "configs/" not in text + config.read_text()


def test_a_config_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = init(tmp_path, "spade")
    config.write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["init", "spade", str(tmp_path)]) == status.USER_ERROR
    assert str(config) in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_link_that_leads_nowhere_is_not_replaced_either(tmp_path: Path) -> None:
    (tmp_path / "spade.yaml").symlink_to("elsewhere.yaml")
    assert main(["init", "spade", str(tmp_path)]) == status.USER_ERROR
    assert [path.name for path in tmp_path.iterdir()] == ["spade.yaml"]
    assert (tmp_path / "spade.yaml").is_symlink()


def test_a_full_disk_is_one_line_and_leaves_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    assert main(["init", "spade", str(tmp_path)]) == status.USER_ERROR
    assert capsys.readouterr().err.splitlines() == [f"{tmp_path}: cannot be written to: No space left on device"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_of_its_own_keeps_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("mine")
    init(tmp_path, "unit")
    assert (tmp_path / "README.md").read_text() == "mine"
    assert f"was there, and stays: {tmp_path / 'README.md'}" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", ".gitignore", "unit.yaml"}


def test_an_unknown_name_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "spades", str(tmp_path / "new")]) == status.USER_ERROR
    assert "'spade'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_without_a_name_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == status.DONE
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if re.match(r"  \S", line)]
    assert listed == list(TEMPLATES)
