"""The zero-centered gradient penalty: a discriminator should be flat where images are (Mescheder et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from imagier.nn.precision import full_precision
from imagier.nn.recompute import keep_activations

Scores = Callable[..., Sequence[Tensor]]
"""(discriminator, images, *conditions) -> scores of any shape N x ..., one tensor per scale."""


def gradient_penalty(
    discriminator: nn.Module,
    images: Tensor,
    *conditions: Tensor,
    scores: Scores = lambda discriminator, *inputs: discriminator(*inputs)[0],
) -> Tensor:
    """R1 at real images, R2 at generated ones (eq. 9, without gamma): half the mean squared gradient of the score.

    images: N x C x H x W; no gradient flows to them. conditions: what else the discriminator is given, of any type.
    scores: how to call it, by default `discriminator(images, *conditions)[0]`; the score of an image is the mean over
    its patches and over scales. Returns a float32 scalar (float64 of float64), differentiable in the discriminator's
    weights. It is computed in full precision whatever the types of images, conditions and weights, since small
    gradients of gradients vanish in half precision. Buffers of the discriminator stay as they are.
    """
    call = _Call(discriminator, scores)
    weights = {name: _full(x) for name, x in call.named_parameters()}
    image, *others = (_full(x.detach()) for x in (images, *conditions))

    def sum_score(image: Tensor) -> Tensor:
        # Copies, because a forward in training mode writes into them: power iterations, running statistics.
        buffers = {name: _full(x).clone() for name, x in call.named_buffers()}
        outputs = functional_call(call, (weights, buffers), (image, *others))
        return torch.stack([x.flatten(1).mean(dim=1) for x in outputs]).mean(dim=0).sum()

    with full_precision(images), keep_activations(discriminator):
        gradient = torch.func.grad(sum_score)(image)
    return gradient.square().flatten(1).sum(dim=1).mean() / 2


class _Call(nn.Module):
    """A discriminator together with the way to call it, so that `functional_call` can replace its weights."""

    def __init__(self, discriminator: nn.Module, scores: Scores) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.scores = scores

    def forward(self, *inputs: Any) -> Sequence[Tensor]:
        """As `Scores`."""
        return self.scores(self.discriminator, *inputs)


def _full(x: Tensor) -> Tensor:
    """In float32, if it is in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x
