"""A convolution of a doubled map as a smaller one before the doubling, against doubling and convolving."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imagier.nn.upsampled_conv import upsampled_conv2d


@pytest.mark.parametrize("sides", [(3, 9), (8, 6), (10, 11)])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [3, 5, 7, 9])
def test_outputs_and_gradients_are_those_of_doubling_first(size: int, mode: str, sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *sides, dtype=torch.float64, requires_grad=True)
    conv = nn.Conv2d(3, 4, size, padding=size // 2, padding_mode=mode, bias=False, dtype=torch.float64)
    expected = conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    found = upsampled_conv2d(x, conv.weight, padding_mode=mode, convolve=F.conv2d)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    grad = torch.randn_like(expected)
    of_both = [torch.autograd.grad(y, (x, conv.weight), grad) for y in (found, expected)]
    torch.testing.assert_close(*of_both, atol=1e-11, rtol=0)


def test_a_kernel_of_one_pixel_convolves_before_the_doubling() -> None:
    x, weight = torch.randn(2, 3, 4, 5), torch.randn(6, 3, 1, 1)
    expected = F.conv2d(x, weight).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(upsampled_conv2d(x, weight, padding_mode="zeros", convolve=F.conv2d), expected)


@pytest.mark.parametrize(("size", "share"), [(3, 4 / 9), (5, 9 / 25), (7, 16 / 49)])
def test_it_multiplies_less(size: int, share: float) -> None:
    convolved = []

    def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, weight)
        convolved.append(y[0, 0].numel() * weight.numel())
        return y

    x, weight = torch.randn(1, 2, 64, 64), torch.randn(3, 2, size, size)
    upsampled_conv2d(x, weight, padding_mode="zeros", convolve=convolve)
    assert sum(convolved) / (128 * 128 * weight.numel()) == pytest.approx(share, rel=0.05)
