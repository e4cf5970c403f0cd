"""A convolution of a doubled map as a smaller one before the doubling, against doubling and convolving."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imagier.nn.upsampled_conv import should_use_subpixel, upsampled_conv2d


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


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("size", [3, 5])
def test_second_derivatives(size: int, mode: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 2, size, size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda x, weight: upsampled_conv2d(x, weight, padding_mode=mode, convolve=F.conv2d), (x, weight)
    )


def test_a_kernel_of_one_pixel_convolves_before_the_doubling() -> None:
    x, weight = torch.randn(2, 3, 4, 5), torch.randn(6, 3, 1, 1)
    expected = F.conv2d(x, weight).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(upsampled_conv2d(x, weight, padding_mode="zeros", convolve=F.conv2d), expected)


@pytest.mark.parametrize(
    ("shape", "outputs", "size", "mode", "expected"),
    [
        ((1, 256, 64, 64), 128, 5, "reflect", True),
        ((1, 64, 64, 64), 3, 5, "zeros", True),
        ((1, 512, 8, 8), 512, 3, "zeros", False),  # few pixels: summing weights costs more than it saves
        ((1, 64, 16, 16), 32, 5, "reflect", False),
        ((16, 64, 16, 16), 32, 5, "reflect", True),
        ((1, 8, 2, 64), 8, 5, "reflect", False),  # the border is as large as the image
        ((1, 256, 64, 64), 128, 1, "zeros", False),
    ],
)
def test_it_is_taken_where_images_are_large(
    shape: tuple[int, ...], outputs: int, size: int, mode: str, expected: bool
) -> None:
    x, weight = torch.empty(shape), torch.empty(outputs, shape[1], size, size)
    assert should_use_subpixel(x, weight, mode) is expected


def test_in_half_precision_weights_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 16, 8, 8).bfloat16(), torch.randn(16, 16, 5, 5)
    kernels: list[torch.Tensor] = []

    def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        kernels.append(weight)
        return F.conv2d(x, weight)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = upsampled_conv2d(x, weight, padding_mode="reflect", convolve=convolve)
    assert kernels[0].dtype == torch.float32 and y.dtype == torch.bfloat16
