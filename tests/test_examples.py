"""The scripts in examples/ run, and what they train learns."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRIPTS = {"train_from_python", "own_model", "use_generator"}


@pytest.fixture(autouse=True)
def from_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m examples.<name> FOLDER`"""
    monkeypatch.setattr(sys, "argv", [name, str(folder)])
    runpy.run_module(f"examples.{name}", run_name="__main__")


def scores(printed: str) -> dict[str, float]:
    """L1 by name."""
    return {name: float(value) for name, value in re.findall(r"^(.+): L1 ([\d.]+)$", printed, re.M)}


def test_every_script_is_run_here() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*SCRIPTS, "shapes"}


def test_a_spade_is_trained_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train_from_python", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "done after 30 iterations" in printed
    of = scores(printed)
    baselines = {"mean color", "mean color of each class"}  # a map of three classes is no image to compare with
    assert of.keys() == {"generator", "live weights", *baselines}
    assert of["generator"] < of["mean color"] / 2
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 8

    run("use_generator", tmp_path, monkeypatch)
    image = np.asarray(Image.open(tmp_path / "made.png")).astype(int)
    assert image.shape == (32, 32, 3)
    assert image.std() > 10


def test_a_method_of_ones_own_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("own_model", tmp_path, monkeypatch)
    of = scores(capsys.readouterr().out)
    assert of["generator"] < of["mean color"] / 2
