"""docs/keys.md, the reference of all keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagier.cli import main
from imagier.config.describe import describe_keys
from imagier.tools.keys_page import render_page

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


def test_the_page_is_up_to_date() -> None:
    """If this fails: make reference"""
    assert PAGE.read_text(encoding="utf-8") == render_page()


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--markdown"]) == 0
    assert capsys.readouterr().out == render_page()


def test_every_key_is_on_the_page_but_those_of_torchs_optimizers() -> None:
    page = render_page()
    absent = [key for key in describe_keys() if f"* `{key.name}`" not in page]
    assert {key.path[0] for key in absent} == {"PLAYER_opt"}
    assert not any({"adam", "madam", "fromage"} & set(key.readers) for key in absent)


def test_no_wrapped_line_begins_a_list_of_its_own() -> None:
    lines = [line.strip() for line in render_page().splitlines() if line.startswith("  ")]
    assert [line for line in lines if line.startswith(("* ", "+ ", "- ", "#"))] == []
