"""Divergence of a Gaussian code from the standard normal (Kingma & Welling 2014, appendix B)."""

from __future__ import annotations

from torch import Tensor


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """Mean and log variance, both N x D -> scalar, **summed** over samples and dimensions."""
    mu, logvar = mu.float(), logvar.float()
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
