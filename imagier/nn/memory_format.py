"""How images lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def find_format(x: Tensor) -> torch.memory_format:
    """channels_last if N x C x H x W lies so (also if in both ways, as of one channel), else contiguous_format."""
    is_channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_channels_last else torch.contiguous_format
