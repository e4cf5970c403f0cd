"""The residual discriminator: one score for a whole image, from residual blocks that halve it (He et al. 2016)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct, Order, ResBlock
from imagier.nn.conv import PaddingMode, WeightNorm, conv2d
from imagier.nn.norm import Norm, norm2d

Aggregation = Literal["conv", "pool"]
"""How the last map becomes a vector: by a convolution over all of it, which must be 4 x 4, or by its mean."""

DiscriminatorOrder = Literal["pre_act", "NACNAC", "CNACNA", "CNACN"]
"""Order of the residual blocks; pre_act is another name of NACNAC."""

_LAST_PX = 4  # the kernel of the aggregating convolution


class ResidualDiscriminator(nn.Module):
    """One score per image, from a vector of features after `num_layers` halvings."""

    def __init__(
        self,
        in_channels: int,
        *,
        num_filters: int = 64,
        max_num_filters: int = 512,
        num_layers: int = 4,
        first_kernel_size: int = 1,
        padding_mode: PaddingMode = "zeros",
        activation_norm_type: Norm = "none",
        weight_norm_type: WeightNorm = "none",
        aggregation: Aggregation = "conv",
        order: DiscriminatorOrder = "pre_act",
        anti_aliased: bool = False,
    ) -> None:
        """num_filters: width of the first layer; it doubles with every halving, up to max_num_filters.

        first_kernel_size: kernel of the first layer. anti_aliased: halve with a low-pass filter instead of 2 x 2 means.
        The aggregation and the score have neither norm.
        """
        super().__init__()
        self.num_layers = num_layers
        self.aggregation = aggregation
        widths = [num_filters, *(min(num_filters * 2**i, max_num_filters) for i in range(1, num_layers + 1))]
        block_order: Order = "NACNAC" if order == "pre_act" else order
        first = conv2d(
            in_channels,
            num_filters,
            first_kernel_size,
            padding=(first_kernel_size - 1) // 2,
            padding_mode=padding_mode,
            weight_norm=weight_norm_type,
        )
        layers: list[nn.Module] = [ConvNormAct(first, norm2d(activation_norm_type, num_filters), _leaky())]
        for inputs, outputs in pairwise(widths):
            block = ResBlock(
                inputs,
                outputs,
                norm=lambda channels: norm2d(activation_norm_type, channels),
                act=_leaky,
                order=block_order,
                padding_mode=padding_mode,
                weight_norm=weight_norm_type,
            )
            layers += [block, BlurPool() if anti_aliased else nn.AvgPool2d(2)]
        self.model = nn.Sequential(*layers, _aggregation_layer(aggregation, widths[-1]))
        self.classifier = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """N x C x H x W -> one score per image, [N x 1]; the aggregated features, [[N x F x 1 x 1]].

        As the lists of the multi-scale patch discriminator with a single scale. UserError if images are not of the one
        size that the aggregating convolution needs.
        """
        if self.aggregation == "conv":
            self._check_size(*images.shape[-2:])
        features = self.model(images)
        return [self.classifier(features.flatten(1))], [[features]]

    def _check_size(self, height: int, width: int) -> None:
        last = (height >> self.num_layers, width >> self.num_layers)
        if last != (_LAST_PX, _LAST_PX):
            wanted = _LAST_PX << self.num_layers
            raise UserError(
                (
                    f"images of {height} x {width} px become {last[0]} x {last[1]} in num_layers: {self.num_layers} "
                    f"halvings, but aggregation: conv needs {_LAST_PX} x {_LAST_PX}"
                ),
                where="dis",
                advice=f"train on {wanted} x {wanted} px, set another num_layers, or use aggregation: pool",
                code="image-size",
            )


class BlurPool(nn.AvgPool2d):
    """Halves a map after a low-pass filter, against aliasing (Zhang 2019).

    The filter is the outer product of (1, 3, 3, 1) / 8 with itself; zero padding.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__(4, stride=2, padding=1)
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(line, line))

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> N x C x H//2 x W//2."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=channels)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(LEAKY_SLOPE)


def _aggregation_layer(kind: Aggregation, channels: int) -> nn.Module:
    if kind == "pool":
        return nn.AdaptiveAvgPool2d(1)
    return ConvNormAct(conv2d(channels, channels, _LAST_PX), nn.Identity(), _leaky())
