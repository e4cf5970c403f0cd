"""Whether tensors are finite, of whatever type and on whatever devices."""

from __future__ import annotations

import pytest
import torch

from imagier.train.finite import find_nonfinite, is_finite


def test_numbers_of_any_type_are_looked_at_and_large_ones_are_finite() -> None:
    fine = {
        "double": torch.tensor([1e300], dtype=torch.float64),
        "half": torch.full((9,), 6e4, dtype=torch.float16),
        "float": torch.full((9,), 3e38),
        "count": torch.tensor(7),
        "empty": torch.zeros(0),
    }
    assert is_finite([]) and find_nonfinite(fine) is None
    for value in (torch.nan, torch.inf, -torch.inf):
        bad = torch.tensor([1.0, value], dtype=torch.bfloat16)
        assert find_nonfinite({**fine, "bad": bad}) == "bad"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no second device")
def test_tensors_may_be_on_several_devices() -> None:
    """As of AdamW, which counts its steps on the CPU."""
    weight = torch.ones(3, device="cuda")
    assert is_finite([torch.tensor(1.0), weight])
    assert find_nonfinite({"step": torch.tensor(torch.nan), "weight": weight}) == "step"
