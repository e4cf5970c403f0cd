"""`imagier explain`: what users read about a key."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_config import TEXT, write

from imagier.cli import main


def explain(capsys: pytest.CaptureFixture[str], *words: object) -> list[list[str]]:
    """The words of each line that the command prints."""
    assert main(["explain", *map(str, words)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_key_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    lines = explain(capsys, "dis_opt.lr_policy.warmup")
    assert lines[0] == ["dis_opt.lr_policy.warmup"]
    assert lines[2:] == [
        ["type", "int,", ">=", "0"],
        ["unit", "epochs", "or", "iterations"],
        ["default", "0"],
        ["read", "by", "all"],
    ]


@pytest.mark.parametrize(
    ("key", "here"),
    [
        ("gen.num_filters", "8 ({path}:10)"),
        ("data.input_types.seg_maps.ext", "png ({path}:20)"),
        ("gen.kernel_size", "3 (the default)"),
        ("gen.style_enc", "a section ({path}:11)"),
        ("gen.latent_dim", "not read by what {path} trains"),
        ("data.cache.root", "not given"),
        ("data.train.roots", "[somewhere/train] ({path}:27)"),
    ],
)
def test_the_value_in_a_config_is_shown_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, here: str
) -> None:
    path = write(tmp_path)
    lines = explain(capsys, key, "--config", path)
    words = [word for line in lines for word in line]  # a long line is wrapped
    start = words.index("here") + 1
    expected = here.format(path=path).split()
    assert words[start : start + len(expected)] == expected


def test_no_secret_of_a_value_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, TEXT.replace("somewhere/train", "'https://me:mine@host/set?sig=mine'"))
    shown = " ".join(word for line in explain(capsys, "data.train.roots", "--config", path) for word in line)
    assert "https://host/set?sig=***" in shown and "mine" not in shown


def test_a_key_in_the_spelling_of_the_reference_is_translated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, TEXT.replace("  lr: 1e-4", "  adam_beta1: 0.5\n  adam_beta2: 0.9"))
    words = [word for line in explain(capsys, "gen_opt.betas", "--config", path) for word in line]
    start = words.index("here")
    assert words[start : start + 4] == ["here", "[0.5,", "0.9]", f"({path}:7)"]


def test_a_section_lists_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert ["trainer.accumulate"] in [line[:1] for line in explain(capsys, "trainer")]


def test_without_a_key_the_sections_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    sections, keys = explain(capsys)
    assert {"trainer,", "gen,", "data,"} <= set(sections)
    assert "max_iter," in keys


def test_an_unknown_key_is_a_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "gen.style_dim"]) == 2
    assert capsys.readouterr().err == "gen.style_dim: no such key; did you mean 'gen.style_dims'?\n"
