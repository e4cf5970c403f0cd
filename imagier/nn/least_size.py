"""How small images may be for a network, so that a smaller one is told as such, and not by some layer inside."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from imagier.errors import UserError


class LeastSize(NamedTuple):
    """The least size of images, in px."""

    side: int
    """Of both sides."""
    longer: int
    """Of the longer one."""

    def check(self, images: Tensor, network: str, remedy: str) -> None:
        """UserError if images N x C x H x W are smaller than that. network: as in "dis: the discriminator"."""
        height, width = images.shape[-2:]
        if min(height, width) < self.side or max(height, width) < self.longer:
            raise UserError(
                f"{network} needs images of at least {self.side} x {self.longer} px, but got {height} x {width} px",
                advice=f"enlarge them (augmentations), or {remedy}",
            )


def least_size(network: nn.Module) -> LeastSize:
    """That of a chain of layers, which `modules()` gives in the order in which they are used."""
    return LeastSize(_least_side(network, normalized=1), _least_side(network, normalized=2))


def _least_side(network: nn.Module, normalized: int) -> int:
    """The side of which enough is left for every layer. normalized: what an instance norm is to see of it.

    torch has no instance norm of a single value, but of a row of two it has.
    """
    side = 1
    for layer in reversed(list(network.modules())):
        if isinstance(layer, nn.InstanceNorm2d):
            side = max(side, normalized)
        elif isinstance(layer, nn.Conv2d):
            kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
            padded = {"reflect": padding + 1, "circular": padding}.get(layer.padding_mode, 1)  # what torch pads
            side = max((side - 1) * stride + kernel - 2 * padding, padded)
        elif isinstance(layer, nn.AvgPool2d):
            sizes = (layer.stride, layer.kernel_size, layer.padding)
            stride, kernel, padding = (size if isinstance(size, int) else size[0] for size in sizes)
            side = (side - 1) * stride + kernel - 2 * padding
    return side
