"""VGG-19 weights by formula: what the reference numbers' perceptual network has instead of trained weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Of every convolution: its index in torchvision's `features`, and its output channels.
CONVS = (
    *((0, 64), (2, 64)),
    *((5, 128), (7, 128)),
    *((10, 256), (12, 256), (14, 256), (16, 256)),
    *((19, 512), (21, 512), (23, 512), (25, 512)),
    *((28, 512), (30, 512), (32, 512), (34, 512)),
)
_GROUP_STARTS = (0, 2, 4, 8, 12)
_PART = 1 << 18  # elements hashed at a time, so that the intermediate values stay in the cache


def write_formula_vgg19(path: Path, layers: Sequence[str] | str = "relu_5_4") -> Path:
    """Write a .pth with torchvision's keys of the convolutions down to the deepest of `layers` (`relu_4_1`...)."""
    names = [layers] if isinstance(layers, str) else layers
    torch.save(formula_vgg19(1 + max(_conv_number(name) for name in names)), path)
    return path


def formula_vgg19(num_convs: int = 16) -> dict[str, Tensor]:
    """State dict `features.<i>.weight/bias` of the first convolutions: biases 0, weights `formula_weight`."""
    state = {}
    in_channels = 3
    for number, (index, channels) in enumerate(CONVS[:num_convs]):
        state[f"features.{index}.weight"] = torch.from_numpy(formula_weight(number, channels, in_channels))
        state[f"features.{index}.bias"] = torch.zeros(channels)
        in_channels = channels
    return state


def formula_weight(number: int, out_channels: int, in_channels: int) -> np.ndarray:
    """Weights of convolution `number` (0 to 15), out x in x 3 x 3, float32: uniform with variance 2 / (9 * in).

    An integer hash of the flat element index in 32-bit arithmetic, as the reference numbers' README defines it.
    """
    bound = math.sqrt(6 / (9 * in_channels))
    weight = np.empty(out_channels * in_channels * 9, dtype=np.float32)
    offset = np.uint32((number + 1) * 0x85EBCA6B % 2**32)
    for start in range(0, weight.size, _PART):
        x = np.arange(start, min(start + _PART, weight.size), dtype=np.uint32)
        x *= np.uint32(0x9E3779B1)
        x += offset
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
        weight[start : start + len(x)] = (2 * (x / 2**32) - 1) * bound
    return weight.reshape(out_channels, in_channels, 3, 3)


def _conv_number(layer: str) -> int:
    _, group, position = layer.split("_")
    return _GROUP_STARTS[int(group) - 1] + int(position) - 1
