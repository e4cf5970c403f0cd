"""Where the numbers recorded on the reference lie: beside the repository, if at all."""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"


def golden(*parts: str) -> Path:
    """A file or folder of the recorded numbers; skips the test where there are none."""
    path = GOLDEN.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no recorded numbers at {path}")
    return path
