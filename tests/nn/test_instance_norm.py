"""Instance norm in every memory format: its values, its gradients, and the format of its output."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from imagier.nn.instance_norm import InstanceNorm2d, instance_norm

FORMATS = (torch.contiguous_format, torch.channels_last)


def by_formula(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centered = x - x.mean(dim=(2, 3), keepdim=True)
    normal = centered / (centered.square().mean(dim=(2, 3), keepdim=True) + 1e-5).sqrt()
    return normal * weight[:, None, None] + bias[:, None, None]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("of_x", "of_gradient"), list(product(FORMATS, FORMATS)), ids=str)
def test_values_and_gradients_are_those_of_the_formula_in_every_format(
    count: int, of_x: torch.memory_format, of_gradient: torch.memory_format
) -> None:
    # One sample with a gradient in channels_last is what torch's own instance norm gets wrong.
    rng = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(count, 5, 6, 7, generator=rng, dtype=torch.float64) for _ in range(2))
    weight, bias = (torch.randn(5, generator=rng, dtype=torch.float64).requires_grad_() for _ in range(2))
    laid = x.contiguous(memory_format=of_x).requires_grad_()
    found = instance_norm(laid, weight, bias)
    assert found.is_contiguous(memory_format=of_x)
    expected = by_formula(x.requires_grad_(), weight, bias)
    torch.testing.assert_close(found, expected)
    gradient = gradient.contiguous(memory_format=of_gradient)
    torch.testing.assert_close(
        torch.autograd.grad(found, (laid, weight, bias), gradient),
        torch.autograd.grad(expected, (x, weight, bias), gradient),
    )


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_large_images_lose_no_digits(memory_format: torch.memory_format) -> None:
    rng = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(1, 2, 512, 520, generator=rng) + 1 for _ in range(2))
    laid = x.contiguous(memory_format=memory_format).requires_grad_()
    found = instance_norm(laid)
    assert found.is_contiguous(memory_format=memory_format)
    x = x.double().requires_grad_()
    expected = by_formula(x, torch.ones(2), torch.zeros(2))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    (of_found,), (of_expected,) = (
        torch.autograd.grad(found, laid, gradient),
        torch.autograd.grad(expected, x, gradient.double()),
    )
    torch.testing.assert_close(of_found.double(), of_expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_second_derivatives(memory_format: torch.memory_format) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, generator=rng, dtype=torch.float64).contiguous(memory_format=memory_format)
    assert torch.autograd.gradgradcheck(instance_norm, x.requires_grad_())


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_half_precision_stays_so_and_is_summed_in_float32(memory_format: torch.memory_format) -> None:
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)) + 8  # sums of bfloat16 would lose it
    norm = InstanceNorm2d(4, affine=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x.bfloat16().contiguous(memory_format=memory_format))
    assert found.dtype == torch.bfloat16
    expected = norm(x.bfloat16().float())
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02)


def test_a_single_pixel_is_refused_as_by_torch() -> None:
    with pytest.raises(ValueError, match="single pixel"):
        InstanceNorm2d(3)(torch.zeros(2, 3, 1, 1))
