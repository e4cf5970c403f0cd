"""The drill (benchmarks/kill_drill.py) in short: one death of each kind that a single process can die."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DRILL = Path(__file__).parents[1] / "benchmarks" / "kill_drill.py"


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_nobody_had_killed_it() -> None:
    command = [sys.executable, str(DRILL), "--kills", "3", "--steps", "9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "{'save': 1, 'loader': 1, 'moment': 1}; equal to the last bit" in done.stdout
