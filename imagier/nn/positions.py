"""Channels that tell a network where a pixel lies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PositionalChannels(nn.Module):
    """Two channels of coordinates: from -1 (top) to 1 (bottom), and from -1 (left) to 1 (right)."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.linspace(-1, 1, 16)
        self.register_buffer("grid", torch.stack(torch.meshgrid(line, line, indexing="ij"))[None], persistent=False)

    def forward(self, like: Tensor) -> Tensor:
        """N x C x h x w -> N x 2 x h x w of the same type; a 16 x 16 grid, resized (bicubic)."""
        grid = F.interpolate(self.grid, size=like.shape[-2:], mode="bicubic")
        return grid.to(like.dtype).expand(like.shape[0], -1, -1, -1)
