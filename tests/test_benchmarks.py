"""Benchmarks can be collected: a ratio that falls is named, and every script knows the option of the collection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import collect

    return collect


def test_a_ratio_that_fell_by_more_than_a_tenth_is_named(collect) -> None:
    before = {"steady": 2.0, "slower": 2.0, "faster": 2.0, "gone": 2.0}
    now = {"steady": 1.85, "slower": 1.75, "faster": 3.0, "new": 0.1}
    assert collect.compare(before, now) == ["worse: slower is 1.75, was 2.00"]


def test_results_are_compared_with_the_last_earlier_ones_of_the_same_processor(collect, tmp_path: Path) -> None:
    for day, processor in (("2026-01-01", "A"), ("2026-01-02", "A"), ("2026-01-03", "B"), ("2026-01-04", "A")):
        (tmp_path / f"{day}.json").write_text(json.dumps({"processor": processor}))
    assert collect.find_last(tmp_path, "A", "2026-01-04").stem == "2026-01-02"
    assert collect.find_last(tmp_path, "C", "2026-01-04") is None


@pytest.mark.slow
def test_every_collected_script_has_the_option_of_the_collection(collect) -> None:
    for script in collect.SCRIPTS:
        command = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--help"]
        assert "--json" in subprocess.run(command, capture_output=True, text=True, check=True).stdout, script
