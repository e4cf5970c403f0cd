"""`imagier verify-resume` finds what is the same, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from imagier.cli import main
from imagier.run import status
from imagier.run.verify_resume import list_cases
from imagier.train.compare import find_first_difference

FORGETFUL = """
import imagier.train.checkpoint as checkpoint

before = checkpoint.restore

def restore(trainer, state, path):
    kept = before(trainer, state, path)
    trainer.players["dis"].optimizer.state.clear()
    return kept

checkpoint.restore = restore
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))


def state(**changed: object) -> dict:
    return {"a": {"w": torch.tensor([1.0, float("nan")]), "n": 3}, "b": [torch.tensor(0.0), "x"], **changed}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (state(), None),
        (state(a={"w": torch.tensor([1.0, float("nan")]), "n": 4}), "a.n"),
        (state(b=[torch.tensor(-0.0), "x"]), "b.0"),
        (state(b=[torch.tensor(0.0, dtype=torch.float64), "x"]), "b.0"),
        (state(b=[torch.tensor(0.0), "x", 1]), "b.2"),
        (state(a={"n": 3}), "a.w"),
    ],
)
def test_the_first_difference_is_named(other: dict, expected: str | None) -> None:
    assert find_first_difference(state(), other) == expected


@pytest.mark.parametrize("steps", range(6, 20))
def test_every_case_ends_with_all_iterations(steps: int) -> None:
    for case in list_cases(steps):
        assert list(case.stops) == sorted(set(case.stops)) and case.stops[0] > 0
        assert case.stops[-1] == steps and len(case.workers) == len(case.stops)


def test_mistakes_are_told_before_anything_is_trained(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-resume", str(config), "--steps", "5"]) == status.USER_ERROR
    assert main(["verify-resume", str(config), "gen.num_filter=3"]) == status.USER_ERROR
    assert "at least 6" in (told := capsys.readouterr().err)
    assert "did you mean 'num_filters'?" in told


@pytest.mark.slow
def test_a_config_that_resumes_is_said_to(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-resume", str(config), "--steps", "6", "--device", "cpu"]) == status.DONE
    assert capsys.readouterr().out.count("the same, bit for bit") == 3


@pytest.mark.slow
def test_a_run_that_forgets_is_found_out(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FORGETFUL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    assert main(["verify-resume", str(config), "--steps", "6", "--device", "cpu"]) == status.FAILED
    told = capsys.readouterr().out
    assert "stopped in the middle: differs, first in players." in told
    assert "two undisturbed runs differ" not in told


@pytest.mark.slow
def test_two_ranks_resume_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-resume", str(config), "--steps", "6", "--device", "cpu", "--ranks", "2"]) == status.DONE
    assert capsys.readouterr().out.count("the same, bit for bit") == 3
