"""InfoNCE: each sample should be more similar to its own partner than to those of the others.

van den Oord et al. 2018, eq. 4; with a temperature that may be learned, as in Radford et al. 2021 (CLIP), section 2.3.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.precision import full_precision

LARGEST_LOGIT_SCALE = 4.6052
"""ln 100: a colder temperature makes training unstable (CLIP, section 2.4)."""


class InfoNCE(nn.Module):
    """Cross entropy of picking the right partner by cosine similarity, over the samples of a batch."""

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        gather_distributed: bool = True,
        flatten: bool = True,
        single_direction: bool = False,
    ) -> None:
        """gather_distributed: the samples of all ranks are candidates, if there are several ranks.
        flatten: compare features at every position; otherwise their means over the image.
        single_direction: only samples of `a` look for their partners in `b`, not the other way round too.
        UserError: a temperature that is not in [0.01, 1], in which a learned one is kept.
        """
        super().__init__()
        if not 0.01 <= temperature <= 1:
            raise UserError(
                f"is {temperature}",
                where="temperature",
                advice="give a number from 0.01 to 1",
                code="temperature-range",
            )
        scale = torch.tensor([math.log(1 / temperature)])
        self.logit_scale = nn.Parameter(scale, requires_grad=learn_temperature)
        self.gather_distributed = gather_distributed
        self.flatten = flatten
        self.single_direction = single_direction

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Features of partners, both N x D or N x C x H x W -> float32 scalar."""
        return self.per_sample(a, b).mean()

    def per_sample(self, a: Tensor, b: Tensor) -> Tensor:
        """Features of partners, both N x D or N x C x H x W -> the loss of each sample, N, float32."""
        if self.training and self.logit_scale.requires_grad:  # the optimizer may have moved it out of its range
            with torch.no_grad():
                self.logit_scale.clamp_(0, LARGEST_LOGIT_SCALE)
        a, b = self._unit(a), self._unit(b)
        loss = self._matching_loss(a, b)
        return loss if self.single_direction else loss + self._matching_loss(b, a)

    def _unit(self, features: Tensor) -> Tensor:
        """Vectors of length 1, N x D."""
        features = features.float()
        places = features.flatten(2) if features.dim() > 2 else features.unsqueeze(2)
        vectors = places.flatten(1) if self.flatten else places.mean(dim=2)
        return vectors / (vectors.norm(dim=1, keepdim=True) + 1e-8)  # features behind a ReLU can all be 0

    def _matching_loss(self, seekers: Tensor, partners: Tensor) -> Tensor:
        rank = 0
        if self.gather_distributed and dist.is_available() and dist.is_initialized():
            rank = dist.get_rank()
            partners = _Gather.apply(partners)
        right = rank * len(seekers) + torch.arange(len(seekers), device=seekers.device)
        with full_precision(seekers):  # similarities need more than 8 bits
            return F.cross_entropy(self.logit_scale.exp() * seekers @ partners.T, right, reduction="none")


class _Gather(torch.autograd.Function):
    """The rows of all ranks, in order of rank; each rank gets back the sum of all ranks' gradients of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]
