"""Label maps as color images."""

from __future__ import annotations

import torch
from torch import Tensor

# Cityscapes' own colors: of the 35 label ids (one row per id), and of the 19 classes that are trained, plus the rest.
_CITYSCAPES_IDS = """
    0,0,0 0,0,0 0,0,0 0,0,0 0,0,0 111,74,0 81,0,81 128,64,128 244,35,232 250,170,160 230,150,140 70,70,70 102,102,156
    190,153,153 180,165,180 150,100,100 150,120,90 153,153,153 153,153,153 250,170,30 220,220,0 107,142,35 152,251,152
    70,130,180 220,20,60 255,0,0 0,0,142 0,0,70 0,60,100 0,0,90 0,0,110 0,80,100 0,0,230 119,11,32 0,0,142
"""
_CITYSCAPES_TRAINED = """
    128,64,128 244,35,232 70,70,70 102,102,156 190,153,153 153,153,153 250,170,30 220,220,0 107,142,35 152,251,152
    220,20,60 255,0,0 0,0,142 0,0,70 0,60,100 0,80,100 0,0,230 119,11,32 70,130,180 0,0,0
"""


def palette(num_classes: int) -> Tensor:
    """Colors of the classes, num_classes x 3, uint8: Cityscapes' for 35 and 20 classes, else Pascal VOC's scheme.

    Pascal VOC (Everingham et al. 2010) spreads the bits of the class over the high bits of red, green and blue.
    """
    if num_classes == 35:
        return _parse(_CITYSCAPES_IDS)
    if num_classes == 20:
        return _parse(_CITYSCAPES_TRAINED)
    classes = torch.arange(num_classes)
    channels = [sum(((classes >> (3 * bit + c)) & 1) << (7 - bit) for bit in range(8)) for c in range(3)]
    return torch.stack([torch.as_tensor(channel) for channel in channels], dim=1).to(torch.uint8)


def colorize(label: Tensor) -> Tensor:
    """One-hot (or any score per class) N x K x H x W -> colors of the largest class, N x 3 x H x W in [-1, 1]."""
    colors = palette(label.shape[1]).to(label.device).float() / 127.5 - 1
    return colors[label.argmax(dim=1)].movedim(-1, 1)


def _parse(table: str) -> Tensor:
    return torch.tensor([[int(value) for value in row.split(",")] for row in table.split()], dtype=torch.uint8)
