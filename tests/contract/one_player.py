"""A method of its own kind, of which the reference knows nothing: one network that learns to turn noise into images.

Rectified flow (Liu et al., Flow Straight and Fast, 2022): it is taught the direction from noise to image, and followed
in a few steps. No discriminator, no `gen`, no `dis`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from imagier.recipe import Batch, Losses, StepContext
from imagier.recipe import Recipe as BaseRecipe


class Net(nn.Module):
    """Points from noise to an image."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(4, width, 3, padding=1)
        self.direction = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """N x 3 x H x W between noise (time 0) and image (time 1), N x 1 x 1 x 1 -> direction N x 3 x H x W."""
        return self.direction(self.hidden(torch.cat([x, time.expand_as(x[:, :1])], dim=1)).relu())


class Recipe(BaseRecipe):
    """One update of one network in an iteration."""

    players = ("net",)
    required_inputs = ("images",)

    def __init__(self, *, net: Net, loss_weight: dict[str, float], num_steps: int = 2) -> None:
        self.net, self.loss_weight, self.num_steps = net, loss_weight, num_steps

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        images = batch["images"]
        noise = torch.randn(images.shape, generator=ctx.rng, device=images.device)
        time = torch.rand((len(images), 1, 1, 1), generator=ctx.rng, device=images.device)
        direction = self.net(torch.lerp(noise, images, time), time)
        yield "net", {"direction": (direction.float() - (images - noise)).square().mean()}

    def generate(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        images = batch["images"]
        x = torch.randn(images.shape, generator=rng, device=images.device)
        for step in range(self.num_steps):
            time = torch.full((len(x), 1, 1, 1), step / self.num_steps, device=x.device)
            x = x + self.net(x, time).float() / self.num_steps
        return {"images": x}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return self.generate(batch, rng)["images"].clamp(-1, 1)

    def infer(self, batch: Batch, rng: torch.Generator) -> list[Tensor]:
        return list(self.generate(batch, rng)["images"])
