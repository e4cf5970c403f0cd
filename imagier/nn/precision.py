"""Full precision inside a run in half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def to_full_precision(x: Tensor) -> Tensor:
    """x in float32, or as it is if it is finer: half precision is too coarse for sums and squares."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast leaves the types of tensors on the device of x as they are."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
