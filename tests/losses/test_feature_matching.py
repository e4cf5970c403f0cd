"""Feature matching against its formula."""

from __future__ import annotations

import torch
from torch import Tensor

from imagier.losses.feature_matching import feature_matching

SHAPES = (((2, 3, 4, 4), (2, 5, 2, 2)), ((2, 3, 2, 2), (2, 5, 1, 1), (2, 7, 1, 1)))


def features() -> list[list[Tensor]]:
    return [[torch.randn(shape) for shape in layers] for layers in SHAPES]


def test_it_sums_mean_absolute_differences_over_layers_and_averages_over_discriminators() -> None:
    torch.manual_seed(0)
    fake, real = features(), features()
    expected = 0.0
    for fake_layers, real_layers in zip(fake, real):
        for x, y in zip(fake_layers, real_layers):
            expected += (x - y).abs().sum().item() / x.numel() / 2
    torch.testing.assert_close(feature_matching(fake, real).item(), expected, rtol=1e-5, atol=0)


def test_real_features_get_no_gradient() -> None:
    torch.manual_seed(0)
    fake, real = ([[x.requires_grad_() for x in layers] for layers in features()] for _ in range(2))
    feature_matching(fake, real).backward()
    for fake_layers, real_layers in zip(fake, real):
        for x, y in zip(fake_layers, real_layers):
            torch.testing.assert_close(x.grad, (x - y).detach().sign() / (x.numel() * len(fake)))
            assert y.grad is None


def test_half_precision_is_accumulated_in_float32() -> None:
    """1 + 2^-9 cannot be told from 1 in half precision."""
    fake = [[torch.ones(1).bfloat16(), torch.full((1,), 2.0**-9).bfloat16()]]
    real = [[torch.zeros(1).bfloat16(), torch.zeros(1).bfloat16()]]
    loss = feature_matching(fake, real)
    assert loss.dtype == torch.float32
    assert loss.item() == 1 + 2.0**-9
