"""Distances of images or features, element by element."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference, in float32 whatever the precision of the run; two of one shape -> scalar."""
    return F.l1_loss(x.float(), y.float())
