"""Layers whose weights another network generates, for each sample its own (HyperNetworks, Ha et al. 2017).

As in few-shot vid2vid (Wang et al. 2019): convolutions, spatially adaptive norms, and residual blocks of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.blocks import LEAKY_SLOPE
from imagier.nn.conv import WeightNorm, conv2d
from imagier.nn.norm import MULTI_SPADE_RULES, MultiSpatiallyAdaptiveNorm

BlockOrder = Literal["NAC", "CNA"]
"""Norm, activation, convolution, or the other way round."""


class Weights(NamedTuple):
    """Of a convolution of each sample."""

    weight: Tensor
    """N x outputs x inputs x k x k."""
    bias: Tensor
    """N x outputs."""


class HyperConv2d(nn.Module):
    """A convolution without weights of its own; sides are kept, or divided by the stride."""

    def __init__(self, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        """N x inputs x H x W -> N x outputs x H' x W', each sample by its own weights, zeros around it."""
        samples, outputs, inputs, kernel, _ = weights.weight.shape
        if kernel == self.stride == 1:
            y = torch.baddbmm(weights.bias[..., None], weights.weight.flatten(2), x.flatten(2))
            return y.unflatten(2, x.shape[-2:])
        side_by_side = x.reshape(1, samples * inputs, *x.shape[-2:])
        weight, bias = weights.weight.flatten(0, 1), weights.bias.flatten()
        y = F.conv2d(side_by_side, weight, bias, stride=self.stride, padding=kernel // 2, groups=samples)
        return y.view(samples, outputs, *y.shape[-2:])


class HyperConvNormAct(nn.Module):
    """Convolution with generated weights, norm, nonlinearity."""

    is_block = True

    def __init__(self, norm: nn.Module, act: nn.Module, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = HyperConv2d(stride=stride)
        self.norm = norm
        self.act = act

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        """As HyperConv2d."""
        return self.act(self.norm(self.conv(x, weights)))


class HyperSpatiallyAdaptiveNorm(nn.Module):
    """SPADE with several maps, the convolution of the first of which has generated weights (Wang et al. 2019, eq. 4).

    The others are as in MultiSpatiallyAdaptiveNorm.
    """

    def __init__(
        self,
        channels: int,
        map_channels: Sequence[int],
        *,
        norm: nn.Module,
        num_filters: int | Sequence[int] = 0,
        **options: Any,
    ) -> None:
        """map_channels, num_filters: of each map, the first included. options: as of SpatiallyAdaptiveNorm."""
        super().__init__()
        self.norm = norm
        self.conv = HyperConv2d()
        widths = num_filters if isinstance(num_filters, int) else num_filters[1:]
        self.others = MultiSpatiallyAdaptiveNorm(
            channels, map_channels[1:], norm=nn.Identity(), num_filters=widths, **options
        )

    def freeze_map(self, index: int) -> None:
        """No gradient for what modulates by the map with this index, of 1 or more."""
        self.others.freeze_map(index - 1)

    def forward(self, x: Tensor, first: Tensor, *others: Tensor | None, weights: Weights) -> Tensor:
        """x: N x C x H x W, maps: N x their channels x h x w; weights: 2 C outputs -> N x C x H x W."""
        if first.shape[-2:] != x.shape[-2:]:
            first = F.interpolate(first, size=x.shape[-2:], mode="nearest")
        gamma, beta = self.conv(first, weights).chunk(2, dim=1)
        x = torch.addcmul(beta, self.norm(x), 1 + gamma)
        return self.others(x, *others) if others else x


Modulation = MultiSpatiallyAdaptiveNorm | HyperSpatiallyAdaptiveNorm


HYPER_SPADE_RULES = (
    (r"\.others\.of_map\.1\.", ".of_map.2."),
    (r"\.others\.of_map\.0\.", ".of_map.1."),
    *MULTI_SPADE_RULES,
)
"""Rules from the names of these norms to the reference's (reference_names.py), for the networks that have them."""


class _Layer(nn.Module):
    """A norm that maps modulate, a nonlinearity and a convolution, both with or without weights of their own."""

    def __init__(self, norm: Modulation, act: nn.Module, conv: nn.Module, order: BlockOrder) -> None:
        super().__init__()
        self.norm = norm
        self.act = act
        self.conv = conv
        self.order = order

    def forward(
        self, x: Tensor, maps: Sequence[Tensor | None], for_norm: Weights | None, for_conv: Weights | None
    ) -> Tensor:
        """N x C x H x W -> N x C' x H x W."""
        norm_options = {} if for_norm is None else {"weights": for_norm}
        conv_options = {} if for_conv is None else {"weights": for_conv}
        if self.order == "NAC":
            return self.conv(self.act(self.norm(x, *maps, **norm_options)), **conv_options)
        return self.act(self.norm(self.conv(x, **conv_options), *maps, **norm_options))


class HyperResBlock(nn.Module):
    """x + f(x) with two layers in f, and one on x where the width changes."""

    is_block = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        norm: Callable[[int], Modulation],
        order: BlockOrder,
        kernel_size: int,
        weight_norm: WeightNorm,
        has_hyper_conv: bool,
    ) -> None:
        """norm: constructs the norm of a number of channels. has_hyper_conv: weights of convolutions are generated."""
        super().__init__()

        def layer(inputs: int, outputs: int, kernel: int, act: nn.Module) -> _Layer:
            conv: nn.Module = HyperConv2d()
            if not has_hyper_conv:
                conv = conv2d(inputs, outputs, kernel, padding=kernel // 2, weight_norm=weight_norm)
            return _Layer(norm(inputs if order == "NAC" else outputs), act, conv, order)

        hidden = min(inputs, outputs)
        self.block_0 = layer(inputs, hidden, kernel_size, nn.LeakyReLU(LEAKY_SLOPE))
        self.block_1 = layer(hidden, outputs, kernel_size, nn.LeakyReLU(LEAKY_SLOPE))
        self.shortcut = None if inputs == outputs else layer(inputs, outputs, 1, nn.Identity())

    def norms(self) -> list[Modulation]:
        """Those of its layers."""
        layers = [self.block_0, self.block_1, *([] if self.shortcut is None else [self.shortcut])]
        return [layer.norm for layer in layers]

    def forward(
        self,
        x: Tensor,
        maps: Sequence[Tensor | None],
        for_norms: Sequence[Weights] | None = None,
        for_convs: Sequence[Weights] | None = None,
    ) -> Tensor:
        """N x inputs x H x W, the maps of the norms, and generated weights of the three layers, if they need them."""
        given: list[Sequence[Weights | None]] = [each or (None,) * 3 for each in (for_norms, for_convs)]
        first, second, beside = zip(*given)
        passed = x if self.shortcut is None else self.shortcut(x, maps, *beside)
        return passed + self.block_1(self.block_0(x, maps, *first), maps, *second)
