"""Why gradients are averaged by hand: torch's own wrappers, with two ranks, on a GAN and on an R1 penalty."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import wrappers
from test_ranks import torchrun

EXPECTED = {
    "one_ddp_around_both": "raises: Expected to have finished reduction",
    "static_ddp_with_penalty": "gradients differ between ranks",
    "fsdp_with_penalty": "raises: ",
}


@pytest.mark.slow
@pytest.mark.parametrize("trial", EXPECTED)
def test_wrappers_fail_where_averaging_by_hand_works(tmp_path: Path, trial: str) -> None:
    """If this test fails, torch has learned to do it: look again whether a wrapper would be simpler."""
    torchrun(Path(wrappers.__file__), trial, str(tmp_path / "outcome.json"))
    assert json.loads((tmp_path / "outcome.json").read_text()).startswith(EXPECTED[trial])
