"""Images moved along a flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.nn.precision import full_precision, to_full_precision


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """What lies where each pixel points to: out(x, y) = images(x + u, y + v), bilinear, with the border repeated.

    images: N x C x H x W. flow: N x 2 x H x W, (u, v) to the right and down, in pixels. -> N x C x H x W, float32 or
    finer; differentiable in both. NaN where the flow is.
    """
    with full_precision(images):
        flow = to_full_precision(flow)
        # Width and height; a tensor of a list would be a copy from the host, which a process waits for.
        sides = torch.stack([flow.new_full((), max(size - 1, 1)) for size in flow.shape[:1:-1]])
        columns, rows = (
            torch.linspace(-1, 1, size, dtype=flow.dtype, device=flow.device) for size in flow.shape[:1:-1]
        )
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy")) + flow * (2 / sides)[:, None, None]
        is_lost = grid.isnan()  # with these, torch 2.13 ends the process in the backward pass on a CPU
        grid = grid.masked_fill(is_lost, 0).movedim(1, -1)
        moved = F.grid_sample(images.to(flow.dtype), grid, mode="bilinear", padding_mode="border", align_corners=True)
        return moved.masked_fill(is_lost.any(dim=1, keepdim=True), torch.nan)


def list_places(flow: Tensor) -> Tensor:
    """Where each pixel is moved to, N x 2 x H x W: column and row."""
    rows, columns = (torch.arange(size, dtype=flow.dtype, device=flow.device) for size in flow.shape[2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy")) + flow


def stays_inside(flow: Tensor) -> Tensor:
    """Which pixels are moved to a place within the image, N x H x W, bool. flow: N x 2 x H x W."""
    height, width = flow.shape[2:]
    x, y = list_places(flow).unbind(dim=1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
