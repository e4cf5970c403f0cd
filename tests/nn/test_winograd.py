"""Convolutions by Winograd's algorithm against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.nn import winograd

LAYOUTS = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"]
)


def tensors(
    size: int = 3, sides: tuple[int, int] = (13, 18), layout: torch.memory_format = torch.contiguous_format
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, *sides, dtype=torch.float64, generator=generator).contiguous(memory_format=layout)
    weight = torch.randn(7, 5, size, size, dtype=torch.float64, generator=generator)
    return x.requires_grad_(), weight.requires_grad_()


@LAYOUTS
@pytest.mark.parametrize("size", winograd.KERNELS)
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_outputs_and_gradients_are_those_of_the_direct_form(
    size: int, padding: int, memory_format: torch.memory_format
) -> None:
    x, weight = tensors(size, layout=memory_format)
    found, expected = winograd.conv2d(x, weight, padding), F.conv2d(x, weight, padding=padding)
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
    assert found.is_contiguous(memory_format=memory_format)
    grad = torch.randn_like(expected)
    of_both = [torch.autograd.grad(y, (x, weight), grad) for y in (found, expected)]
    torch.testing.assert_close(*of_both, atol=1e-10, rtol=0)


@pytest.mark.parametrize("sides", [(3, 3), (4, 4), (5, 31), (16, 8)])
def test_sides_need_not_be_whole_tiles(sides: tuple[int, int]) -> None:
    x, weight = tensors(sides=sides)
    torch.testing.assert_close(winograd.conv2d(x, weight, 1), F.conv2d(x, weight, padding=1), atol=1e-11, rtol=0)


def test_several_chunks_of_tiles_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = tensors(sides=(40, 24))
    expected = F.conv2d(x, weight, padding=1)
    gradients = torch.autograd.grad(expected.square().sum(), (x, weight))
    monkeypatch.setattr(winograd, "_SMALLEST_CHUNK", 1)
    found = winograd.conv2d(x, weight, 1)
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), (x, weight)), gradients)


def test_gradients_of_gradients_are_right() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 6, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda *inputs: winograd.conv2d(*inputs, 1), (x, weight))


def test_a_gradient_penalty_by_torch_func_is_that_of_the_direct_form() -> None:
    x, weight = tensors()

    def penalty(convolve: object) -> Tensor:
        def score(images: Tensor) -> Tensor:
            return convolve(images, weight).relu().square().sum()  # type: ignore[operator]

        return torch.autograd.grad(torch.func.grad(score)(x).square().sum(), weight)[0]

    expected = penalty(F.conv2d)
    torch.testing.assert_close(penalty(winograd.conv2d), expected)


@pytest.mark.parametrize("size", winograd.KERNELS)
def test_in_float32_the_error_is_small(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 32, 32, generator=generator)
    weight = torch.randn(64, 64, size, size, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), padding=size // 2)
    error = (winograd.conv2d(x, weight, size // 2) - exact).abs().max() / exact.abs().max()
    assert error < 2e-5


def test_an_output_can_be_changed_in_place() -> None:
    x, weight = tensors(sides=(9, 9))
    y = winograd.conv2d(x, weight, 1)
    found = torch.autograd.grad(F.relu(y, inplace=True).sum(), weight)
    torch.testing.assert_close(found, torch.autograd.grad(F.conv2d(x, weight, padding=1).relu().sum(), weight))


@pytest.mark.parametrize(
    ("shape", "outputs", "size", "expected"),
    [
        ((1, 256, 64, 64), 256, 3, True),
        ((1, 64, 128, 128), 512, 5, True),
        ((1, 32, 64, 64), 32, 3, False),  # narrow: transforming costs more than it saves
        ((1, 3, 256, 256), 64, 5, False),
        ((1, 512, 8, 8), 512, 3, False),  # small: kernels are transformed for few tiles
        ((1, 256, 64, 64), 256, 7, False),
        ((1, 256, 64, 64), 256, 1, False),
    ],
)
def test_it_is_taken_where_layers_are_wide_and_large(
    shape: tuple[int, ...], outputs: int, size: int, expected: bool
) -> None:
    x, weight = torch.empty(shape), torch.empty(outputs, shape[1], size, size)
    assert winograd.should_use_winograd(x, weight, size // 2) is expected


def test_it_is_not_taken_in_half_precision() -> None:
    x, weight = torch.empty(1, 256, 64, 64), torch.empty(256, 256, 3, 3)
    assert not winograd.should_use_winograd(x.bfloat16(), weight.bfloat16(), 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not winograd.should_use_winograd(x, weight, 1)
