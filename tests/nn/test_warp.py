"""Warping moves images by whole pixels as slices do, by fractions as a mean does, and repeats the border."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imagier.nn.warp import warp


def flow_of(right: float, down: float, size: tuple[int, int] = (5, 7)) -> Tensor:
    return torch.tensor([right, down]).view(1, 2, 1, 1).expand(1, 2, *size).contiguous()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))


def test_a_pixel_shows_what_lies_where_its_flow_points_to(image: Tensor) -> None:
    moved = warp(image, flow_of(2, -1))
    assert torch.allclose(moved[..., 1:, :-2], image[..., :-1, 2:], atol=1e-6)


def test_beyond_the_border_the_border_is_seen(image: Tensor) -> None:
    assert torch.allclose(warp(image, flow_of(100, 0)), image[..., -1:].expand_as(image), atol=1e-6)
    assert torch.allclose(warp(image, flow_of(0, -100)), image[..., :1, :].expand_as(image), atol=1e-6)


def test_half_a_pixel_is_the_mean_of_two(image: Tensor) -> None:
    moved = warp(image, flow_of(0.5, 0))
    assert torch.allclose(moved[..., :-1], (image[..., :-1] + image[..., 1:]) / 2, atol=1e-6)


def test_gradients_reach_image_and_flow(image: Tensor) -> None:
    """The gradient of a pixel in its horizontal flow is the difference of the two pixels that it lies between."""
    image.requires_grad_()
    flow = flow_of(0.25, 0).requires_grad_()
    warp(image, flow)[0, 0, 2, 3].backward()
    assert flow.grad is not None and image.grad is not None
    assert flow.grad[0, 0, 2, 3] == pytest.approx((image[0, 0, 2, 4] - image[0, 0, 2, 3]).item(), abs=1e-5)
    assert image.grad[0, 0, 2, 3:5].tolist() == pytest.approx([0.75, 0.25], abs=1e-5)


def test_half_precision_moves_by_exact_pixels(image: Tensor) -> None:
    """In bfloat16 a flow of 100.5 would be 100 or 101."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = warp(image, flow_of(1, 0))
    assert moved.dtype == torch.float32
    assert torch.allclose(moved[..., :-1], image[..., 1:], atol=1e-6)


def test_an_image_of_one_row_stays_where_it_is() -> None:
    image = torch.rand(1, 1, 1, 4)
    assert torch.allclose(warp(image, flow_of(0, 0, (1, 4))), image, atol=1e-6)


def test_a_flow_that_is_no_number_leads_nowhere_and_ends_no_process(image: Tensor) -> None:
    """On a CPU, torch 2.13 itself would crash in the backward pass."""
    flow = torch.zeros(2, 2, *image.shape[-2:])
    flow[0, 1, 2, 3] = torch.nan
    flow.requires_grad_()
    moved = warp(image.expand(2, -1, -1, -1), flow)
    expected = torch.zeros(2, 1, *image.shape[-2:], dtype=torch.bool)
    expected[0, 0, 2, 3] = True
    assert torch.equal(moved.isnan(), expected.expand_as(moved))
    assert torch.equal(moved[1], warp(image, flow[1:].detach())[0])
    moved[1].sum().backward()
    assert flow.grad is not None and flow.grad[1].isfinite().all()
