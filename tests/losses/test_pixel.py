"""Distances pixel by pixel, against sums by hand."""

from __future__ import annotations

import pytest
import torch

from imagier.losses.pixel import l1, mse


def test_l1_is_the_mean_over_all_elements() -> None:
    assert l1(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), torch.tensor([[1.0, 2.0], [-3.0, 0.5]])).item() == 10.5 / 4


def test_half_precision_is_averaged_in_float32() -> None:
    """1 + 2^-9 cannot be told from 1 in half precision."""
    x, y = torch.tensor([1, 2.0**-9]).bfloat16(), torch.zeros(2).bfloat16()
    ones = torch.ones(2).bfloat16()
    assert l1(x, y).dtype == mse(x, y, ones).dtype == torch.float32
    assert l1(x, y).item() == 0.5 + 2.0**-10
    assert mse(x.sqrt(), y, ones, "sum").item() == pytest.approx(1 + 2.0**-9, rel=1e-3)


@pytest.mark.parametrize(("reduction", "expected"), [("sum", 45.0), ("mean", 11.25)])
def test_weighted_squares_are_summed_or_averaged_over_all_elements(reduction: str, expected: float) -> None:
    """0 * 1 + 1 * 4 + 1 * 9 + 2 * 16, over 4 elements, also those that weigh nothing."""
    x, y = torch.tensor([5.0, 5.0, 5.0, 5.0]), torch.tensor([4.0, 3.0, 8.0, 1.0])
    assert mse(x, y, torch.tensor([0.0, 1.0, 1.0, 2.0]), reduction).item() == expected


def test_the_mean_is_what_is_meant_where_nothing_is_said() -> None:
    assert mse(torch.ones(4), torch.zeros(4), torch.ones(4)).item() == 1


def test_a_weight_of_a_pixel_holds_for_all_its_channels() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2, 3, 4, 4, generator=rng)
    weights = torch.rand(2, 1, 4, 4, generator=rng)
    torch.testing.assert_close(mse(x, y, weights), mse(x, y, weights.repeat(1, 3, 1, 1)))
