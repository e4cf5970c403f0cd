"""Image sizes that networks can halve and double again; images in the form in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch.nn.functional as F
from torch import Tensor


def round_to_multiple(tensors: Mapping[str, Tensor], names: Iterable[str], multiple: int) -> dict[str, Tensor]:
    """The named tensors N x C x H x W whose sides are no multiples, resized to the next smaller multiples.

    The one called "label" is resized by nearest neighbor, all others by bicubic interpolation. Names that are not there
    are skipped. No side may be smaller than `multiple`.
    """
    resized = {}
    for name in names:
        if name not in tensors:
            continue
        height, width = tensors[name].shape[-2:]
        size = (height // multiple * multiple, width // multiple * multiple)
        if size != (height, width):
            mode = "nearest" if name == "label" else "bicubic"
            resized[name] = F.interpolate(tensors[name], size=size, mode=mode)
    return resized


def upsample2x(x: Tensor) -> Tensor:
    """N x C x H x W -> N x C x 2H x 2W, by nearest neighbor."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def to_rgb(images: Tensor) -> Tensor:
    """N x C x H x W in [-1, 1] -> N x 3 x H x W, float32, clamped to [-1, 1]: as people see them.

    1 channel is gray, 3 are red, green, blue. A second, or a fourth, is alpha: such images are laid on white. Of more
    channels the first three are shown.
    """
    return lay_on_white(images.float().clamp(-1, 1)).expand(-1, 3, -1, -1)


def lay_on_white(images: Tensor) -> Tensor:
    """N x C x H x W, white 1 and black -1 -> N x 1 or 3 x H x W, without alpha; the first three of more than four."""
    channels = images.shape[1]
    if channels in (2, 4):
        alpha = (images[:, -1:] + 1) / 2
        return images[:, :-1] * alpha + (1 - alpha)
    return images[:, :3] if channels > 4 else images
