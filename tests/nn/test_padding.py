"""Padding under autocast: the type of the convolution after it, and the numbers of float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from imagier.nn.conv import PaddingMode, conv2d
from imagier.nn.padding import pad


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "constant"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_padding_is_in_the_type_of_the_convolution_after_it(mode: str, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = pad(x, (1, 2, 2, 1), mode)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.pad(x.bfloat16().float(), (1, 2, 2, 1), mode), rtol=0, atol=0)
    assert pad(x.double(), (1, 1, 1, 1), mode).dtype == torch.float64


def test_a_convolution_with_reflected_borders_keeps_its_numbers_under_autocast() -> None:
    layer = conv2d(3, 4, 5, padding=2, padding_mode="reflect")
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        expected = F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), layer.weight, layer.bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.slow  # the compiler takes 10 s
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_compiled_borders_in_channels_last_have_the_gradients_of_plain_ones(mode: PaddingMode) -> None:
    """torch 2.13's compiler refuses those of F.pad: it expects other strides than CPUs make."""
    rng = torch.Generator().manual_seed(0)
    layer = conv2d(8, 4, 5, padding=2, padding_mode=mode).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 16, 12, generator=rng).to(memory_format=torch.channels_last).requires_grad_()
    (expected,) = torch.autograd.grad(layer(x).sin().sum(), x)
    layer.compile()
    (found,) = torch.autograd.grad(layer(x).sin().sum(), x)
    torch.testing.assert_close(found, expected)
