"""The divergence of a Gaussian code against torch's distributions."""

from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence

from imagier.losses.kl import gaussian_kl


def test_it_is_the_divergence_summed_over_samples_and_dimensions() -> None:
    torch.manual_seed(0)
    mu, logvar = torch.randn(3, 4), torch.randn(3, 4)
    expected = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(gaussian_kl(mu, logvar), expected)


def test_it_is_zero_at_the_standard_normal_and_has_its_minimum_there() -> None:
    mu, logvar = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    loss = gaussian_kl(mu, logvar)
    loss.backward()
    assert loss.item() == 0
    assert not mu.grad.any() and not logvar.grad.any()


def test_half_precision_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    mu, logvar = torch.randn(30, 40).bfloat16(), torch.randn(30, 40).bfloat16()
    assert torch.equal(gaussian_kl(mu, logvar), gaussian_kl(mu.float(), logvar.float()))
