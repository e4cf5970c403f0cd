"""Distances pixel by pixel, against sums by hand."""

from __future__ import annotations

import torch

from imagier.losses.pixel import l1


def test_l1_is_the_mean_over_all_elements() -> None:
    assert l1(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), torch.tensor([[1.0, 2.0], [-3.0, 0.5]])).item() == 10.5 / 4


def test_half_precision_is_averaged_in_float32() -> None:
    """1 + 2^-9 cannot be told from 1 in half precision."""
    x, y = torch.tensor([1, 2.0**-9]).bfloat16(), torch.zeros(2).bfloat16()
    assert l1(x, y).dtype == torch.float32
    assert l1(x, y).item() == 0.5 + 2.0**-10
