"""A small U-Net (Ronneberger et al. 2015) that says which class each pixel is of, and its training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNKNOWN = -1
"""The class of a pixel of which nothing is known."""


def _make_block(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1),
        nn.GroupNorm(4, channels),  # unlike batch norm, an image's classes do not depend on the others of its batch
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(4, channels),
        nn.ReLU(inplace=True),
    )


class SmallUNet(nn.Module):
    """N x 3 x H x W in [0, 1] -> class logits, N x K x H x W; three scales, for sides of 4 pixels or more."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.first = _make_block(3, width)
        self.second = _make_block(width, 2 * width)
        self.bottom = _make_block(2 * width, 4 * width)
        self.up_second = _make_block(6 * width, 2 * width)
        self.up_first = _make_block(3 * width, width)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(2 * images - 1)
        second = self.second(F.max_pool2d(first, 2))
        bottom = self.bottom(F.max_pool2d(second, 2))
        second = self.up_second(_join(bottom, second))
        return self.head(self.up_first(_join(second, first)))


def _join(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.cat([F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False), fine], dim=1)


def train_unet(
    batches: Iterable[tuple[Tensor, Tensor]], num_classes: int, *, steps: int, lr: float, seed: int
) -> SmallUNet:
    """A network in eval mode. On the CPU it is the same each time.

    batches: images, N x 3 x H x W in [0, 1], and class ids, N x H x W, UNKNOWN for pixels that do not count; gone
    through as often as needed. Half of the images, drawn at random, are mirrored.
    """
    rng = torch.Generator().manual_seed(seed)
    network = _build(num_classes, seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    for done, (images, classes) in enumerate(islice(_repeat(batches), steps)):
        network.to(images.device)
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - done / steps)
        mirrored = (torch.rand(len(images), generator=rng) < 0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        classes = torch.where(mirrored[:, None, None], classes.flip(2), classes)
        _step(network, optimizer, images, classes)
    return network.eval()


def _repeat(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """All batches, again and again, until there is none."""
    is_empty = False
    while not is_empty:
        is_empty = True
        for batch in batches:
            is_empty = False
            yield batch


def _build(num_classes: int, seed: int) -> SmallUNet:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change those of all devices
        return SmallUNet(num_classes)


@torch.enable_grad()
def _step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, classes: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    errors = F.cross_entropy(network(images), classes, ignore_index=UNKNOWN, reduction="none")
    (errors.sum() / (classes != UNKNOWN).sum().clamp(min=1)).backward()
    optimizer.step()
