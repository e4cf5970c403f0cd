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


def to_rgb(images: Tensor) -> Tensor:
    """N x 1 or 3 x H x W -> N x 3 x H x W, float32, clamped to [-1, 1]."""
    return images.float().clamp(-1, 1).expand(-1, 3, -1, -1)
