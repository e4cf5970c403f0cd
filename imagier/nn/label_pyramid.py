"""Features of a label map at every size: a feature pyramid (Lin et al. 2017)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct
from imagier.nn.conv import conv2d
from imagier.nn.norm import norm2d
from imagier.nn.resize import upsample2x


class LabelPyramid(nn.Module):
    """Features of a label map at every size, with context passed down from the coarsest (Lin et al. 2017)."""

    def __init__(self, label_channels: int, width: int, *, num_halvings: int) -> None:
        super().__init__()
        widths = [min(width * 2**level, 4 * width) for level in range(num_halvings + 1)]

        def layer(inputs: int, outputs: int, stride: int = 1) -> ConvNormAct:
            conv = conv2d(inputs, outputs, 3, stride=stride, padding=1)
            return ConvNormAct(conv, norm2d("instance", outputs), nn.LeakyReLU(LEAKY_SLOPE))

        first = conv2d(label_channels, width, 3, padding=1)
        self.first = ConvNormAct(first, nn.Identity(), nn.LeakyReLU(LEAKY_SLOPE))
        self.down = nn.ModuleList(layer(inputs, outputs, 2) for inputs, outputs in pairwise(widths))
        self.context = nn.Sequential(layer(widths[-1], widths[-1]), layer(widths[-1], widths[-1]))
        self.lateral = nn.ModuleList(conv2d(inputs, width, 1) for inputs in widths)
        self.merge = nn.ModuleList(layer(width, width) for _ in widths[1:])

    def forward(self, label: Tensor, channels: Tensor | None) -> list[Tensor]:
        """N x L x H x W -> features N x width x h x w at full size, half, and so on; sides must be divisible."""
        features = [self.first(label, channels=channels)]
        for down in self.down:
            features.append(down(features[-1]))
        features[-1] = self.context(features[-1])
        features = [lateral(x) for lateral, x in zip(self.lateral, features)]
        for level in reversed(range(len(self.merge))):
            features[level] = self.merge[level](features[level] + upsample2x(features[level + 1]))
        return features
