"""The network that predicts how a reference or the last frame moves (Wang et al., Few-shot Video-to-Video, 2019)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct, ResBlock, build_up_layers
from imagier.nn.conv import WeightNorm, conv2d
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.norm import Norm, norm2d
from imagier.ranges import Count, Odd, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True)
class WarpEmbedParams(EmbedParams):
    """A network that encodes a warped image and its mask."""

    sep_warp_embed: bool = False
    """Encode the warped frame before with a network of its own, not with that of the warped reference."""


@dataclass(frozen=True, kw_only=True)
class FewShotCombineParams:
    """How warped images get into the new one: as features that modulate the last layers."""

    num_layers: Count = 3
    """How many of the last blocks they modulate."""
    embed: WarpEmbedParams = WarpEmbedParams(arch="unet")
    """The network that encodes a warped image and its mask."""


@dataclass(frozen=True, kw_only=True)
class FewShotFlowParams:
    """The networks that predict how the reference and the frame before move, and where they are to be painted anew."""

    warp_ref: bool = True
    """Warp the reference, too, and not the frame before alone."""
    sep_prev_flow: bool = False
    """A network of its own for the frame before. Without it both share one, if each is a single image."""
    num_filters: Positive = 32
    """Width at full size; it doubles whenever the size halves. [channels]"""
    max_num_filters: Positive = 1024
    """Largest width. [channels]"""
    num_downsamples: Count = 3
    """How often the size is halved."""
    kernel_size: Odd = 3
    """Height and width of the kernels. [pixels]"""
    num_blocks: Count = 6
    """Residual blocks at the smallest size."""
    flow_output_multiplier: PositiveFloat = 20.0
    """Factor of the flow. [pixels]"""
    sep_up_mask: bool = False
    """The mask has a decoder of its own."""
    activation_norm_type: Norm = "sync_batch"
    """Norm after the convolutions."""
    weight_norm_type: WeightNorm = "spectral"
    """Norm of the weights of convolutions, but for the last."""
    multi_spade_combine: FewShotCombineParams = FewShotCombineParams()
    """How warped images get into the new one."""
    generate_raw_output: bool = False
    """Make each frame without the warped images, too, and train on both."""


class FewShotFlowNetwork(nn.Module):
    """Flow from a frame to other images, and where not to trust it, from the labels of all and the images of others."""

    def __init__(self, in_channels: int, params: FewShotFlowParams) -> None:
        """in_channels: of all labels and images together."""
        super().__init__()
        p = params
        self.multiplier = p.flow_output_multiplier
        widths = [min(p.max_num_filters, p.num_filters * 2**level) for level in range(p.num_downsamples + 1)]

        def norm(channels: int) -> nn.Module:
            return norm2d(p.activation_norm_type, channels)

        def act() -> nn.Module:
            return nn.LeakyReLU(LEAKY_SLOPE)

        def layer(inputs: int, outputs: int, **options: Any) -> ConvNormAct:
            padding = p.kernel_size // 2
            conv = conv2d(inputs, outputs, p.kernel_size, padding=padding, weight_norm=p.weight_norm_type, **options)
            return ConvNormAct(conv, norm(outputs), act())

        def block() -> ResBlock:
            kernel, deepest, weight_norm = p.kernel_size, widths[-1], p.weight_norm_type
            return ResBlock(
                deepest, deepest, norm=norm, act=act, order="NACNAC", kernel_size=kernel, weight_norm=weight_norm
            )

        halvings = [layer(inputs, outputs, stride=2) for inputs, outputs in pairwise(widths)]
        self.down_flow = nn.Sequential(layer(in_channels, widths[0]), *halvings)
        self.res_flow = nn.Sequential(*(block() for _ in range(p.num_blocks)))
        self.up_flow = nn.Sequential(*build_up_layers(widths[::-1], layer))
        self.up_mask = copy.deepcopy(self.up_flow) if p.sep_up_mask else None
        self.conv_flow = conv2d(widths[0], 2, p.kernel_size, padding=p.kernel_size // 2)
        self.conv_mask = conv2d(widths[0], 1, p.kernel_size, padding=p.kernel_size // 2)

    def forward(self, label: Tensor, other_labels: Tensor, other_images: Tensor) -> tuple[Tensor, Tensor]:
        """N x L x H x W, N x (P L) x H x W, N x (P C) x H x W, the oldest first -> flow (nn/warp.py), mask.

        Mask: N x 1 x H x W, from 0, trust the flow, to 1, paint anew. Sides must be divisible by 2^num_downsamples.
        """
        x = self.res_flow(self.down_flow(torch.cat([label, other_labels, other_images], dim=1)))
        for_flow = self.up_flow(x)
        for_mask = for_flow if self.up_mask is None else self.up_mask(x)
        return self.conv_flow(for_flow).float() * self.multiplier, self.conv_mask(for_mask).sigmoid()
