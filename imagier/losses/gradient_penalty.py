"""The zero-centered gradient penalty: a discriminator should be flat where images are real (Mescheder et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call


def gradient_penalty(discriminator: nn.Module, images: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018, eq. 9, without gamma): half the mean squared norm of the gradient of the score.

    discriminator: images -> (scores per scale, anything); the score of an image is the mean over its patches and over
    scales. images: N x C x H x W, real ones -> float32 scalar, differentiable in the discriminator's weights. Buffers
    of the discriminator stay as they are.
    """
    parameters: dict[str, Tensor] = dict(discriminator.named_parameters())

    def summed_score(images: Tensor) -> Tensor:
        # Copies, because a forward in training mode writes into them: power iterations, running statistics.
        buffers = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
        outputs, _ = functional_call(discriminator, (parameters, buffers), (images,))
        return torch.stack([scores.flatten(1).mean(dim=1) for scores in outputs]).mean(dim=0).sum()

    with torch.autocast(images.device.type, enabled=False):  # small gradients of gradients vanish in half precision
        gradient = torch.func.grad(summed_score)(images.detach())
    return gradient.square().flatten(1).sum(dim=1).mean() / 2
