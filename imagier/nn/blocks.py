"""A convolution with its norm and its nonlinearity, in the two orders that networks use."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

LEAKY_SLOPE = 0.2


class ConvNormAct(nn.Module):
    """Convolution, norm, nonlinearity."""

    def __init__(self, conv: nn.Module, norm: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.act = act

    def forward(self, x: Tensor, channels: Tensor | None = None) -> Tensor:
        """N x C x H x W -> N x C' x H' x W'; `channels` as in Conv2d."""
        return self.act(self.norm(self.conv(x, channels)))


class NormActConv(nn.Module):
    """Norm under a condition, nonlinearity, convolution."""

    def __init__(self, norm: nn.Module, act: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.act = act
        self.conv = conv

    def forward(self, x: Tensor, condition: Any) -> Tensor:
        """N x C x H x W and the condition of the norm -> N x C' x H' x W'."""
        return self.conv(self.act(self.norm(x, condition)))


class NoNorm(nn.Module):
    """The absent norm of a NormActConv."""

    def forward(self, x: Tensor, condition: Any) -> Tensor:
        """Returns x."""
        return x
