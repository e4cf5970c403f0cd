"""All ranks end at the same step, and none waits at a step for the decision of a slower one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import stop_ranks
from stop_ranks import MAX_ITER
from test_ranks import torchrun


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[str]]]:
    """Of both ranks, by what the second one asked for."""
    folder = tmp_path_factory.mktemp("stops")
    os.mkfifo(folder / "pipe")
    torchrun(Path(stop_ranks.__file__), str(folder))
    return [json.loads((folder / f"outcomes{rank}.json").read_text()) for rank in (0, 1)]


EXPECTED = {
    "interrupted": ["GO_ON"] * 3 + ["INTERRUPTED"],
    "saved": ["GO_ON"] * 2 + ["SAVE"] + ["GO_ON"] * 2 + ["DONE"],
    "at once": [],
    "just before the end": ["GO_ON"] * 5 + ["DONE"],
    "slow": ["GO_ON"] * 5 + ["DONE"],
}


@pytest.mark.parametrize("asked", EXPECTED)
def test_what_a_rank_asks_for_counts_one_step_later_on_all_and_the_end_is_exact(
    asked: str, outcomes: list[dict[str, list[str]]]
) -> None:
    """Slow: the second rank decides on step 2 only once the first one has done all of it."""
    assert [of_rank[asked] for of_rank in outcomes] == [EXPECTED[asked]] * 2
    assert EXPECTED["slow"][-1] == "DONE" and len(EXPECTED["slow"]) == MAX_ITER
