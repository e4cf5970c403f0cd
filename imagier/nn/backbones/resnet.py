"""ResNet-50 (He et al. 2016, table 1), the stride of a block on its 3 x 3 convolution; no classifier."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.backbones.backbone import Backbone, Steps
from imagier.nn.backbones.weights import find_cached_file

_EXPANSION = 4  # a block puts out 4 times as many channels as its 3 x 3 convolution


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution beside a shortcut (He et al. 2016, figure 5 right)."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = _EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Sequential()
        if in_channels != out_channels:
            self.downsample.append(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def _stage(in_channels: int, width: int, num_blocks: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(in_channels, width, stride)
    return nn.Sequential(first, *(_Bottleneck(_EXPANSION * width, width, 1) for _ in range(num_blocks - 1)))


def _steps() -> Steps:
    yield "conv1", nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    yield "bn1", nn.BatchNorm2d(64)
    yield "relu", nn.ReLU(inplace=True)
    yield "maxpool", nn.MaxPool2d(3, stride=2, padding=1)
    yield "layer1", _stage(64, 64, 3, stride=1)
    yield "layer2", _stage(256, 128, 4, stride=2)
    yield "layer3", _stage(512, 256, 6, stride=2)
    yield "layer4", _stage(1024, 512, 3, stride=2)


def _robust_key(key: str) -> str:
    return f"module.model.{key}"


_TAPS = {f"layer_{i}": f"layer{i}" for i in (1, 2, 3, 4)}

RESNET50 = Backbone(
    name="resnet50",
    steps=_steps,
    taps=_TAPS,
    find_weights=partial(find_cached_file, ("resnet50-0676ba61.pth", "resnet50-19c8e357.pth", "resnet50-11ad3fa6.pth")),
)

# Trained against adversarial perturbations (Engstrom et al. 2019, the package `robustness`), same layout.
ROBUST_RESNET50 = Backbone(
    name="robust_resnet50",
    steps=_steps,
    taps=_TAPS,
    find_weights=partial(find_cached_file, ("ImageNet.pt",), "github.com/MadryLab/robustness"),
    file_key=_robust_key,
)
