"""Borders around images that autocast does not make float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.nn.precision import full_precision


def pad(x: Tensor, widths: Sequence[int], mode: str) -> Tensor:
    """What a convolution is given: F.pad of x, in the type in which autocast computes convolutions.

    On CPUs autocast pads by reflection and by replication in float32, which takes two copies more in each direction.
    """
    device = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(device):  # no context, which torch.export would keep
        return F.pad(x, list(widths), mode)
    if x.dtype == torch.float32:
        x = x.to(torch.get_autocast_dtype(device))
    with full_precision(x):
        return F.pad(x, list(widths), mode)
