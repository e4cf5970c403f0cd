"""Feature matching: generated and real images should have similar features (Wang et al. 2018, eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_matching(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """Features per discriminator and layer -> scalar: L1 distance, summed over layers, averaged over discriminators.

    No gradient goes to the real features.
    """
    distances = [
        F.l1_loss(x.float(), y.detach().float())
        for fake_layers, real_layers in zip(fake, real)
        for x, y in zip(fake_layers, real_layers)
    ]
    return torch.stack(distances).sum() / len(fake)
