"""Full precision inside a run in half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast leaves the types of tensors on the device of x as they are."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
