"""The distance pixel by pixel, against its sum written out."""

from __future__ import annotations

import torch

from imagier.losses.pixel import weighted_mse


def test_weighted_squares_are_summed_or_averaged_over_all_elements() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2, 3, 4, 4, generator=rng)
    weights = torch.rand(2, 1, 4, 4, generator=rng)
    pairs = zip(x.flatten().tolist(), y.flatten().tolist(), weights.expand_as(x).flatten().tolist())
    total = sum(w * (p - q) ** 2 for p, q, w in pairs)
    torch.testing.assert_close(weighted_mse(x, y, weights, "sum"), torch.tensor(total))
    torch.testing.assert_close(weighted_mse(x, y, weights), torch.tensor(total / x.numel()))
