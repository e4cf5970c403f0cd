"""Encoders shared by translation methods: content, style, MLP (Huang et al. 2018, appendix B)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.blocks import ConvNormAct, Order, ResBlock
from imagier.nn.conv import WeightNorm, conv2d, linear
from imagier.nn.norm import Norm, norm2d


class ContentEncoder(nn.Module):
    """Image to content code: a feature map of 1/2^num_downsamples of its size."""

    def __init__(
        self,
        *,
        image_channels: int,
        num_filters: int,
        max_num_filters: int | None = None,
        num_downsamples: int,
        num_res_blocks: int,
        norm: Norm = "instance",
        weight_norm: WeightNorm = "none",
        order: Order = "CNACNA",
    ) -> None:
        """max_num_filters: limit of the width, which doubles with every downsampling. order: of the residual blocks."""
        super().__init__()
        widths = [num_filters * 2**level for level in range(num_downsamples + 1)]
        if max_num_filters is not None:
            widths = [num_filters, *(min(width, max_num_filters) for width in widths[1:])]
        self.out_channels = widths[-1]
        layers: list[nn.Module] = [_stem(image_channels, widths[0], norm, weight_norm)]
        layers += [_down_block(inputs, outputs, norm, weight_norm) for inputs, outputs in pairwise(widths)]
        layers += [
            ResBlock(
                self.out_channels,
                self.out_channels,
                norm=lambda channels: norm2d(norm, channels),
                act=nn.ReLU,
                order=order,
                padding_mode="reflect",
                weight_norm=weight_norm,
            )
            for _ in range(num_res_blocks)
        ]
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """N x image_channels x H x W in [-1, 1] -> N x out_channels x h x w."""
        return self.model(images)


class StyleEncoder(nn.Module):
    """Image to style code: a vector."""

    def __init__(
        self,
        *,
        image_channels: int,
        num_filters: int,
        num_downsamples: int,
        style_dims: int,
        norm: Norm = "none",
        weight_norm: WeightNorm = "none",
    ) -> None:
        """num_downsamples: at least 2, smaller numbers are raised."""
        super().__init__()
        widths = [num_filters, 2 * num_filters, *[4 * num_filters] * (max(num_downsamples, 2) - 1)]
        self.model = nn.Sequential(
            _stem(image_channels, num_filters, norm, weight_norm),
            *(_down_block(inputs, outputs, norm, weight_norm) for inputs, outputs in pairwise(widths)),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(widths[-1], style_dims, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """N x image_channels x H x W in [-1, 1] -> N x style_dims x 1 x 1."""
        return self.model(images)


class MLP(nn.Module):
    """Linear layers, each followed by a ReLU, also the last."""

    def __init__(self, *dims: int) -> None:
        """dims: sizes of the input, the hidden layers and the output."""
        super().__init__()
        self.model = nn.ModuleList(linear(inputs, outputs) for inputs, outputs in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """N x dims[0], or with further dimensions of size 1 -> N x dims[-1]."""
        x = x.flatten(1)
        for layer in self.model:
            x = F.relu(layer(x))
        return x


def _stem(inputs: int, outputs: int, norm: Norm, weight_norm: WeightNorm) -> ConvNormAct:
    conv = conv2d(inputs, outputs, 7, padding=3, padding_mode="reflect", weight_norm=weight_norm)
    return ConvNormAct(conv, norm2d(norm, outputs), nn.ReLU())


def _down_block(inputs: int, outputs: int, norm: Norm, weight_norm: WeightNorm) -> ConvNormAct:
    conv = conv2d(inputs, outputs, 4, stride=2, padding=1, padding_mode="reflect", weight_norm=weight_norm)
    return ConvNormAct(conv, norm2d(norm, outputs), nn.ReLU())
