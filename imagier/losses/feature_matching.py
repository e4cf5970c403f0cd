"""Feature matching: generated pictures should move the critic's layers as real ones do (Wang et al. 2018, eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_matching(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """Features per critic and layer -> scalar: the sum over layers, mean over critics, of the mean absolute difference.

    No gradient goes to the real features.
    """
    distances = [
        F.l1_loss(x.float(), y.detach().float())
        for fake_layers, real_layers in zip(fake, real)
        for x, y in zip(fake_layers, real_layers)
    ]
    return torch.stack(distances).sum() / len(fake)
