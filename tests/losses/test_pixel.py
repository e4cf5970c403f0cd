"""Distances pixel by pixel, against their sums written out."""

from __future__ import annotations

import torch
from torch import Tensor

from imagier.losses.pixel import masked_l1, named_distance, weighted_mse


def pictures(count: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 4, generator=rng) for _ in range(count)]


def test_weighted_squares_are_summed_or_averaged_over_all_elements() -> None:
    x, y, _ = pictures(3)
    weights = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    pairs = zip(x.flatten().tolist(), y.flatten().tolist(), weights.expand_as(x).flatten().tolist())
    total = sum(w * (p - q) ** 2 for p, q, w in pairs)
    torch.testing.assert_close(weighted_mse(x, y, weights, "sum"), torch.tensor(total))
    torch.testing.assert_close(weighted_mse(x, y, weights), torch.tensor(total / x.numel()))


def test_what_is_masked_out_does_not_count_and_over_valid_nor_does_the_masks_size() -> None:
    x, y, noise = pictures(3)
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, :2] = 1
    half = (x - y)[:, :, :2].abs().mean()
    for target in (y, torch.where(mask.bool(), y, noise)):
        torch.testing.assert_close(masked_l1(x, target, mask), half / 2)
        torch.testing.assert_close(masked_l1(x, target, mask, over_valid=True), half)
    assert masked_l1(x, y, torch.zeros_like(mask), over_valid=True) == 0


def test_named_tensors_are_compared_one_by_one_and_the_real_ones_get_no_gradient() -> None:
    a, b, c, d = pictures(4)
    c.requires_grad_()
    torch.testing.assert_close(
        named_distance({"p": a, "q": b}, {"p": c, "q": d}), (a - c).abs().mean() + (b - d).abs().mean()
    )
    loss = named_distance({"p": a.requires_grad_(), "q": b}, {"p": c, "q": d}, "mse")
    torch.testing.assert_close(loss, (a - c).square().mean() + (b - d).square().mean())
    loss.backward()
    assert a.grad is not None
    assert c.grad is None
