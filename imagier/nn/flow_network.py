"""The network that predicts how the last frame of a video moves (Wang et al., Video-to-Video Synthesis, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct, ResBlock, build_up_layers
from imagier.nn.conv import WeightNorm, conv2d
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.norm import Norm, norm2d
from imagier.ranges import Count, Odd, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True)
class CombineParams:
    """How the warped frame gets into the new one: as features that modulate the last layers."""

    num_layers: Positive = 3
    """How many of the last blocks it modulates."""
    embed: EmbedParams = EmbedParams(arch="unet")
    """The network that encodes the warped frame and its mask."""


@dataclass(frozen=True, kw_only=True)
class FlowParams:
    """The network that predicts how the frame before moves, and where it is to be painted anew."""

    num_filters: Positive = 32
    """Width at full size; it doubles whenever the size halves. [channels]"""
    max_num_filters: Positive = 1024
    """Largest width. [channels]"""
    num_downsamples: Count = 5
    """How often the size is halved."""
    kernel_size: Odd = 3
    """Height and width of the kernels. [pixels]"""
    num_res_blocks: Count = 6
    """Residual blocks at the smallest size."""
    flow_output_multiplier: PositiveFloat = 20.0
    """Factor of the flow. [pixels]"""
    activation_norm_type: Norm = "sync_batch"
    """Norm after the convolutions."""
    weight_norm_type: WeightNorm = "spectral"
    """Norm of the weights of convolutions, but for the last."""
    multi_spade_combine: CombineParams | None = CombineParams()
    """How the warped frame gets into the new one; null: the two are blended pixel by pixel."""
    generate_raw_output: bool = False
    """Make each frame without the warped one, too, and train on both (with multi_spade_combine)."""


class FlowNetwork(nn.Module):
    """Flow to the frame before, and where not to trust it, from labels and frames (Wang et al. 2018, section 3.2)."""

    def __init__(self, label_channels: int, image_channels: int, num_frames: int, params: FlowParams) -> None:
        """num_frames: labels that it sees; of the last there is no frame yet."""
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

        def encoder(inputs: int) -> nn.Sequential:
            halvings = [layer(of_input, of_output, stride=2) for of_input, of_output in pairwise(widths)]
            return nn.Sequential(layer(inputs, widths[0]), *halvings)

        def block() -> ResBlock:
            kernel, deepest = p.kernel_size, widths[-1]
            norms = {"norm": norm, "act": act, "weight_norm": p.weight_norm_type}
            return ResBlock(deepest, deepest, order="CNACN", kernel_size=kernel, **norms)  # type: ignore[arg-type]

        self.down_lbl = encoder(label_channels * num_frames)
        self.down_img = encoder(image_channels * (num_frames - 1))
        self.res_flow = nn.Sequential(*(block() for _ in range(p.num_res_blocks)))
        self.up_flow = nn.Sequential(*build_up_layers(widths[::-1], layer))
        self.conv_flow = conv2d(widths[0], 2, p.kernel_size, padding=p.kernel_size // 2)
        self.conv_mask = conv2d(widths[0], 1, p.kernel_size, padding=p.kernel_size // 2)

    def forward(self, labels: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """N x num_frames x L x H x W, the oldest first, N x (num_frames - 1) x C x H x W -> flow (nn/warp.py), mask.

        Mask: N x 1 x H x W, from 0, trust the flow, to 1, paint anew. Sides must be divisible by 2^num_downsamples.
        """
        x = self.down_lbl(labels.flatten(1, 2)) + self.down_img(images.flatten(1, 2))
        x = self.up_flow(self.res_flow(x))
        return self.conv_flow(x).float() * self.multiplier, self.conv_mask(x).sigmoid()
