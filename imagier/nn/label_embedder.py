"""Features of a label map at every size, for spatially adaptive norms (Wang et al. 2019, few-shot vid2vid)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct
from imagier.nn.conv import WeightNorm, conv2d
from imagier.nn.hyper import HyperConvNormAct, Weights
from imagier.nn.norm import Norm, norm2d
from imagier.nn.resize import upsample2x
from imagier.ranges import Count, Odd, Positive


@dataclass(frozen=True, kw_only=True)
class EmbedParams:
    """A network that turns a map into features at every size."""

    arch: Literal["encoder", "encoderdecoder", "unet"] = "encoderdecoder"
    """encoder: features on the way down. encoderdecoder: features on the way up again. unet: these, with those on the
    way down beside them."""
    num_filters: Positive = 32
    """Width at full size; it doubles whenever the size halves. [channels]"""
    max_num_filters: Positive = 1024
    """Largest width. [channels]"""
    num_downsamples: Count = 5
    """How often the size is halved."""
    kernel_size: Odd = 3
    """Height and width of the kernels. [pixels]"""
    weight_norm_type: WeightNorm = "spectral"
    """Norm of the weights of convolutions."""
    activation_norm_type: Norm = "none"
    """Norm after the convolutions, but for the first."""


class LabelEmbedder(nn.Module):
    """Encoder and, but for `arch: encoder`, decoder; the features of level j have 1 / 2^j of the size of the map."""

    def __init__(self, in_channels: int, params: EmbedParams, *, num_hyper_layers: int = 0) -> None:
        """num_hyper_layers: levels, from full size on, the layers of which have no weights of their own."""
        super().__init__()
        self.params = params
        widths = [params.num_filters * 2**level for level in range(params.num_downsamples + 1)]
        self.channels = [min(params.max_num_filters, width) for width in widths]
        """Width of each level."""
        kernel = params.kernel_size

        def layer(inputs: int, outputs: int, norm: Norm, stride: int = 1, *, is_hyper: bool = False) -> nn.Module:
            if is_hyper:
                return HyperConvNormAct(norm2d(norm, outputs), nn.LeakyReLU(LEAKY_SLOPE), stride=stride)
            conv = conv2d(
                inputs, outputs, kernel, stride=stride, padding=kernel // 2, weight_norm=params.weight_norm_type
            )
            return ConvNormAct(conv, norm2d(norm, outputs), nn.LeakyReLU(LEAKY_SLOPE))

        ch, norm = self.channels, params.activation_norm_type
        self.conv_first = layer(in_channels, ch[0], "none")
        of_up, of_down = (0, num_hyper_layers) if params.arch == "encoder" else (num_hyper_layers, 0)
        levels = range(len(ch) - 1)
        self.down = nn.ModuleList(layer(ch[i], ch[i + 1], norm, 2, is_hyper=i < of_down) for i in levels)
        self.up = nn.ModuleList()
        for i in levels if params.arch != "encoder" else ():
            inputs = ch[i + 1] * (2 if self._has_skip(i) else 1)
            self.up.append(layer(inputs, ch[i], norm, is_hyper=i < of_up))

    def _has_skip(self, level: int) -> bool:
        """Whether the layer up to a level sees the features on the way down, too; the deepest are those themselves."""
        return self.params.arch == "unet" and level != self.params.num_downsamples - 1

    def forward(self, x: Tensor, weights: Sequence[Weights] = ()) -> list[Tensor]:
        """N x C x H x W, sides divisible by 2^num_downsamples -> of each level N x channels[j] x H / 2^j x W / 2^j.

        weights: generated ones, of each of the hyper layers.
        """
        given = [(each,) for each in weights] + [()] * (len(self.down) - len(weights))
        encoded = [self.conv_first(x)]
        for level, down in enumerate(self.down):
            encoded.append(down(encoded[-1], *(() if len(self.up) else given[level])))
        if not len(self.up):
            return encoded
        found = encoded[-1:]
        for level in reversed(range(len(self.up))):
            deeper = torch.cat([found[0], encoded[level + 1]], dim=1) if self._has_skip(level) else found[0]
            found.insert(0, self.up[level](upsample2x(deeper), *given[level]))
        return found
