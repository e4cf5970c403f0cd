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
    if torch.compiler.is_dynamo_compiling() and mode in ("reflect", "replicate"):  # not for an export
        return _pad_by_slices(x, widths, mode)
    device = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(device):  # no context, which torch.export would keep
        return F.pad(x, list(widths), mode)
    if x.dtype == torch.float32:
        x = x.to(torch.get_autocast_dtype(device))
    with full_precision(x):
        return F.pad(x, list(widths), mode)


def _pad_by_slices(x: Tensor, widths: Sequence[int], mode: str) -> Tensor:
    """The same in operations that torch 2.13 compiles: it mistakes the strides of a gradient of F.pad on CPUs."""
    for dim, before, after in ((3, *widths[:2]), (2, *widths[2:])):
        size = x.shape[dim]
        if mode == "reflect":
            first, last = x.narrow(dim, 1, before).flip(dim), x.narrow(dim, size - 1 - after, after).flip(dim)
        else:
            first, last = (
                x.narrow(dim, at, 1).expand(*(width if i == dim else -1 for i in range(4)))
                for at, width in ((0, before), (size - 1, after))
            )
        x = torch.cat([first, x, last], dim=dim)
    return x
