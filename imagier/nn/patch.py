"""The patch discriminator (Isola et al. 2017) and its multi-scale form (Wang et al. 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct
from imagier.nn.conv import WeightNorm, conv2d
from imagier.nn.norm import Norm, norm2d


class PatchDiscriminator(nn.Module):
    """One score per patch. Halves the image in layer 0 and in all but the last of `num_layers` further layers."""

    def __init__(
        self,
        in_channels: int,
        *,
        num_filters: int,
        max_num_filters: int,
        num_layers: int,
        kernel_size: int,
        activation_norm_type: Norm,
        weight_norm_type: WeightNorm,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.layers = nn.ModuleList()
        width = num_filters
        for index in range(num_layers + 1):
            stride = 1 if index == num_layers > 0 else 2
            conv = conv2d(in_channels, width, kernel_size, stride=stride, padding=padding, weight_norm=weight_norm_type)
            norm = norm2d(activation_norm_type, width)
            self.layers.append(ConvNormAct(conv, norm, nn.LeakyReLU(LEAKY_SLOPE)))
            in_channels, width = width, min(2 * width, max_num_filters)
        score = conv2d(in_channels, 1, 3, padding=padding, weight_norm=weight_norm_type)
        self.layers.append(ConvNormAct(score, nn.Identity(), nn.Identity()))

    def forward(self, x: Tensor, channels: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """N x C x H x W (`channels` as in Conv2d) -> scores N x 1 x h x w, and the features of all layers before."""
        first, *others = self.layers
        outputs = [first(x, channels=channels)]
        for layer in others:
            outputs.append(layer(outputs[-1]))
        return outputs[-1], outputs[:-1]


class MultiScalePatchDiscriminator(nn.Module):
    """Patch discriminators of an image at several scales, each half the one before (Wang et al. 2018, section 3.2)."""

    def __init__(
        self,
        in_channels: int,
        *,
        num_discriminators: int,
        num_filters: int,
        max_num_filters: int,
        num_layers: int,
        kernel_size: int,
        activation_norm_type: Norm,
        weight_norm_type: WeightNorm,
        is_shared: bool = False,
    ) -> None:
        """is_shared: one discriminator for all scales."""
        super().__init__()
        self.num_scales = num_discriminators
        self.discriminators = nn.ModuleList(
            PatchDiscriminator(
                in_channels,
                num_filters=num_filters,
                max_num_filters=max_num_filters,
                num_layers=num_layers,
                kernel_size=kernel_size,
                activation_norm_type=activation_norm_type,
                weight_norm_type=weight_norm_type,
            )
            for _ in range(1 if is_shared else num_discriminators)
        )

    def forward(self, x: Tensor, channels: Tensor | None = None) -> tuple[list[Tensor], list[list[Tensor]]]:
        """N x C x H x W (`channels` as in Conv2d) -> scores N x 1 x h x w per scale; features per scale and layer."""
        outputs, features = [], []
        for scale in range(self.num_scales):
            x = downsample2x(x) if scale else x
            scores, layers = self.discriminators[scale % len(self.discriminators)](x, channels)
            outputs.append(scores)
            features.append(layers)
        return outputs, features


def downsample2x(x: Tensor) -> Tensor:
    """N x C x H x W -> N x C x H//2 x W//2, bilinear with aligned corners."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True, recompute_scale_factor=True)
