"""Convolution, norm and nonlinearity in the two usual orders, and residual blocks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imagier.nn.conv import PaddingMode, WeightNorm, conv2d

LEAKY_SLOPE = 0.2


Nonlinearity = Literal["none", "relu", "leakyrelu", "tanh", "sigmoid"]


def nonlinearity(kind: Nonlinearity) -> nn.Module:
    """The nonlinearity called `kind`; the slope of the leaky ReLU is 0.2."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "relu": nn.ReLU,
        "leakyrelu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
    }
    return makers[kind]()


class Noise(nn.Module):
    """Adds noise of a learned strength, initially 0, the same to all channels (Karras et al. 2019, section 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same.

        Draws from the global random source, which is seeded at every step of a training, and once for inference.
        """
        return x + self.scale * torch.randn_like(x[:, :1])


class ConvNormAct(nn.Module):
    """Convolution, norm, nonlinearity."""

    is_block = True  # for recompute.py, as in all others

    def __init__(self, conv: nn.Module, norm: nn.Module, act: nn.Module, *, has_noise: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.noise = Noise() if has_noise else nn.Identity()
        self.norm = norm
        self.act = act

    def forward(self, x: Tensor, *condition: Any, channels: Tensor | None = None) -> Tensor:
        """N x C x H x W, and the condition of the norm if it has one -> N x C' x H' x W'; `channels` as in Conv2d."""
        return self.act(self.norm(self.noise(self.conv(x, channels)), *condition))


class NormActConv(nn.Module):
    """Norm, nonlinearity, convolution."""

    is_block = True

    def __init__(self, norm: nn.Module, act: nn.Module, conv: nn.Module, *, has_noise: bool = False) -> None:
        super().__init__()
        self.norm = norm
        self.act = act
        self.conv = conv
        self.noise = Noise() if has_noise else nn.Identity()

    def forward(self, x: Tensor, *condition: Any) -> Tensor:
        """N x C x H x W, and the condition of the norm if it has one -> N x C' x H' x W'."""
        return self.noise(self.conv(self.act(self.norm(x, *condition))))


class NoNorm(nn.Module):
    """No norm, in a block whose norms take a condition."""

    def forward(self, x: Tensor, *condition: Any) -> Tensor:
        """Returns x."""
        return x


class UpsampledByNext(NoNorm):
    """Does nothing: the convolution after it upsamples. The names of weights count this layer."""


def build_up_layers(widths: Sequence[int], layer: Callable[..., nn.Module]) -> list[nn.Module]:
    """Layers from each width to the next that upsample by 2, as two modules each, by which weights are named.

    layer: constructs a layer of two widths, and `upsample`.
    """
    pairs = [(UpsampledByNext(), layer(inputs, outputs, upsample=True)) for inputs, outputs in pairwise(widths)]
    return [module for pair in pairs for module in pair]


Order = Literal["CNACNA", "CNACN", "NACNAC"]
"""Convolution, norm, activation: twice, without the last activation, or with the convolutions last."""


class ResBlock(nn.Module):
    """x + f(x) with two convolutions in f (He et al. 2016); a 1 x 1 convolution on x where the width changes.

    The norms must take a condition if it is given one.
    """

    is_block = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        norm: Callable[[int], nn.Module],
        act: Callable[[], nn.Module],
        order: Order = "CNACNA",
        kernel_size: int = 3,
        padding_mode: PaddingMode = "zeros",
        weight_norm: WeightNorm = "none",
        has_noise: bool = False,
    ) -> None:
        """norm: constructs the norm of a number of channels. act: constructs a nonlinearity."""
        super().__init__()

        def layer(inputs: int, outputs: int, kernel: int, act: nn.Module, has_noise: bool) -> nn.Module:
            conv = conv2d(
                inputs, outputs, kernel, padding=kernel // 2, padding_mode=padding_mode, weight_norm=weight_norm
            )
            if order == "NACNAC":
                return NormActConv(norm(inputs), act, conv, has_noise=has_noise)
            return ConvNormAct(conv, norm(outputs), act, has_noise=has_noise)

        hidden = min(inputs, outputs)
        self.block_0 = layer(inputs, hidden, kernel_size, act(), has_noise)
        self.block_1 = layer(hidden, outputs, kernel_size, nn.Identity() if order == "CNACN" else act(), has_noise)
        self.shortcut = NoNorm() if inputs == outputs else layer(inputs, outputs, 1, nn.Identity(), False)

    def forward(self, x: Tensor, *condition: Any) -> Tensor:
        """N x inputs x H x W, and the condition of the norms if they have one -> N x outputs x H x W."""
        return self.shortcut(x, *condition) + self.block_1(self.block_0(x, *condition), *condition)
