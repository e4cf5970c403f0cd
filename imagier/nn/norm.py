"""Norms of activations: plain ones by name, and adaptive ones with an affine part from a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.conv import WeightNorm, conv2d, linear
from imagier.nn.instance_norm import InstanceNorm2d
from imagier.nn.partial_conv import partial_conv
from imagier.nn.precision import to_full_precision
from imagier.ranges import Positive, PositiveFloat, Share

Norm = Literal["none", "instance", "batch", "sync_batch", "layer_2d", "group", "pixel_layer", "pixel"]


@dataclass(frozen=True, kw_only=True)
class NormParams:
    """Options of a plain norm; each norm uses those that it has."""

    affine: bool = True
    """Learn a scale and a shift per channel."""
    eps: PositiveFloat = 1e-5
    """Added to the variance (to the deviation in layer_2d), against division by 0."""
    momentum: Share = 0.1
    """Share of a batch in the running statistics (batch, sync_batch)."""
    num_groups: Positive = 4
    """Groups of channels (group)."""
    channel_only: bool = False
    """Statistics over the channels of one pixel instead of the whole image (layer_2d)."""


def norm2d(kind: Norm, channels: int, params: NormParams = NormParams()) -> nn.Module:
    """The norm called `kind` for activations N x channels x H x W. UserError if groups do not divide the channels."""
    p = params
    makers = {
        "none": lambda: nn.Identity(),
        "instance": lambda: InstanceNorm2d(channels, eps=p.eps, affine=p.affine),
        "batch": lambda: nn.BatchNorm2d(channels, eps=p.eps, momentum=p.momentum, affine=p.affine),
        "sync_batch": lambda: SyncBatchNorm2d(channels, eps=p.eps, momentum=p.momentum, affine=p.affine),
        "layer_2d": lambda: LayerNorm2d(channels, eps=p.eps, affine=p.affine, channel_only=p.channel_only),
        "group": lambda: _group_norm(channels, p),
        "pixel_layer": lambda: PixelLayerNorm(channels, eps=p.eps, affine=p.affine),
        "pixel": lambda: PixelNorm(),
    }
    return makers[kind]()


def _group_norm(channels: int, params: NormParams) -> nn.GroupNorm:
    groups = params.num_groups
    if groups < 1 or channels % groups:
        raise UserError(
            f"group norm: {channels} channels cannot be split into {groups} groups",
            advice="choose another num_groups, or widths that it divides",
            code="groups-do-not-divide",
        )
    return nn.GroupNorm(groups, channels, eps=params.eps, affine=params.affine)


def set_eps(network: nn.Module, eps: float) -> None:
    """Gives all norms in a network this epsilon; `pixel` has none."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm | LayerNorm2d):
            module.eps = eps


class LayerNorm2d(nn.Module):
    """Layer norm over C x H x W of a sample, or over C of a pixel; divides by (unbiased deviation + eps)."""

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True, channel_only: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.dims = [1] if channel_only else [1, 2, 3]
        self.gamma = nn.Parameter(torch.ones(channels)) if affine else None
        self.beta = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same."""
        exact = to_full_precision(x)
        deviation, mean = torch.std_mean(exact, dim=self.dims, keepdim=True)
        exact = (exact - mean) / (deviation + self.eps)
        if self.gamma is not None and self.beta is not None:
            exact = exact * self.gamma[:, None, None] + self.beta[:, None, None]
        return exact.to(x.dtype)


class PixelLayerNorm(nn.Module):
    """Layer norm over the channels of every pixel."""

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class PixelNorm(nn.Module):
    """Divides every pixel by the root mean square of its channels (Karras et al. 2018, section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same."""
        exact = to_full_precision(x)
        return (exact * torch.rsqrt(exact.square().mean(dim=1, keepdim=True) + 1e-5)).to(x.dtype)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all ranks, on any device; on a single rank it is plain batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        mean, var, count = _global_moments(to_full_precision(x))
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = 1 / self.num_batches_tracked.float() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(var * (count / (count - 1)), share)
        # The affine part and the statistics are fused into one scale and one shift per channel.
        scale = torch.rsqrt(var + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale
        if self.affine:
            shift = shift + self.bias
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None]).to(x.dtype)


def _global_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and number of values [] over N, H, W and all ranks, differentiable in x.

    Combined as in Chan, Golub & LeVeque 1979 (eq. 2.1b): from each rank's own mean and variance, so that no precision
    is lost where the mean is much larger than the deviation.
    """
    local_var, local_mean = torch.var_mean(x, dim=(0, 2, 3), unbiased=False)
    local_count = x.new_full((1,), float(x.numel() // x.shape[1]))
    totals = _SumOverRanks.apply(torch.cat([local_mean * local_count, local_count]))
    count = totals[-1]
    mean = totals[:-1] / count
    spread = (local_var + (local_mean - mean).square()) * local_count
    return mean, _SumOverRanks.apply(spread) / count, count


class _SumOverRanks(torch.autograd.Function):
    """Sum over all ranks; its gradient is the sum of all ranks' gradients. Differentiable any number of times."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing is needed for the gradient."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SumOverRanks.apply(grad)


class AdaptiveNorm(nn.Module):
    """A norm whose affine part is a linear function of a code (AdaIN, Huang & Belongie 2017; conditional batch norm).

    out = norm(x) (1 + gamma) + beta with (gamma, beta) = fc(code).
    """

    def __init__(
        self,
        channels: int,
        code_dims: int,
        *,
        norm: nn.Module,
        separate_projection: bool = False,
        weight_norm: WeightNorm = "none",
    ) -> None:
        super().__init__()
        self.norm = norm
        self.separate_projection = separate_projection
        if separate_projection:
            self.fc_gamma = linear(code_dims, channels, weight_norm=weight_norm)
            self.fc_beta = linear(code_dims, channels, weight_norm=weight_norm)
        else:
            self.fc = linear(code_dims, 2 * channels, weight_norm=weight_norm)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x: N x C x H x W, code: N x code_dims -> N x C x H x W."""
        if self.separate_projection:
            gamma, beta = self.fc_gamma(code), self.fc_beta(code)
        else:
            gamma, beta = self.fc(code).chunk(2, dim=1)
        return torch.addcmul(beta[..., None, None], self.norm(x), 1 + gamma[..., None, None])


class PartialMap(NamedTuple):
    """A map without some channels that are 0 everywhere."""

    map: Tensor
    """N x K x H x W."""
    channels: Tensor | None
    """The indices of its channels [K]; None: all."""


class SpatiallyAdaptiveNorm(nn.Module):
    """SPADE: a norm whose affine part is computed per pixel from a map (Park et al. 2019, eq. 1).

    out = norm(x) (1 + gamma) + beta with (gamma, beta) = mlp(map).
    """

    def __init__(
        self,
        channels: int,
        map_channels: int,
        *,
        norm: nn.Module,
        num_filters: int = 128,
        kernel_size: int = 3,
        separate_projection: bool = False,
        bias_only: bool = False,
        weight_norm: WeightNorm = "none",
    ) -> None:
        super().__init__()
        self.norm = norm
        self.separate_projection = separate_projection
        self.bias_only = bias_only

        def conv(inputs: int, outputs: int) -> nn.Module:
            return conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, weight_norm=weight_norm)

        hidden = num_filters or map_channels
        layers = [conv(map_channels, num_filters), nn.ReLU()] if num_filters else []
        if separate_projection:
            self.gamma = conv(hidden, channels)
            self.beta = conv(hidden, channels)
        else:
            layers.append(conv(hidden, 2 * channels))
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Tensor, condition: PartialMap) -> Tensor:
        """x: N x C x H x W, condition: the map, already at the size of x -> N x C x H x W."""
        hidden, channels = condition
        for index, layer in enumerate(self.mlp):
            hidden = layer(hidden, channels) if index == 0 else layer(hidden)
        if self.separate_projection:
            channels = None if len(self.mlp) else channels
            gamma, beta = self.gamma(hidden, channels), self.beta(hidden, channels)
        else:
            gamma, beta = hidden.chunk(2, dim=1)
        x = self.norm(x)
        return x + beta if self.bias_only else torch.addcmul(beta, x, 1 + gamma)


class MaskedSpatiallyAdaptiveNorm(nn.Module):
    """SPADE by a map that is known in some places alone: x stays as it is elsewhere (Mallya et al. 2020)."""

    def __init__(
        self, channels: int, map_channels: int, *, num_filters: int, kernel_size: int, weight_norm: WeightNorm = "none"
    ) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> nn.Module:
            return conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, weight_norm=weight_norm)

        hidden = [conv(map_channels, num_filters), nn.ReLU()] if num_filters else []
        self.mlp = nn.ModuleList([*hidden, conv(num_filters or map_channels, 2 * channels)])

    def forward(self, x: Tensor, condition: PartialMap) -> Tensor:
        """x: N x C x H x W, condition: the map at the size of x, its last channel 1 where it is known, else 0."""
        hidden, mask = condition.map[:, :-1], condition.map[:, -1:]
        for layer in self.mlp:
            if isinstance(layer, nn.ReLU):
                hidden = layer(hidden)
            else:
                hidden, mask = partial_conv(layer, hidden, mask)
        gamma, beta = hidden.chunk(2, dim=1)
        return torch.addcmul(beta, x, 1 + gamma)


class MultiSpatiallyAdaptiveNorm(nn.Module):
    """SPADE with several maps: what one map has modulated, the next one modulates again.

    Of the maps of a call, some may be missing: the first ones alone, or None.
    """

    def __init__(
        self,
        channels: int,
        map_channels: Sequence[int],
        *,
        norm: nn.Module,
        num_filters: int | Sequence[int] = 0,
        is_masked: Sequence[bool] = (),
        separate_projection: bool = False,
        **options: Any,
    ) -> None:
        """map_channels: of each map. norm: before the first modulation. num_filters: of all maps, or of each.

        is_masked: which maps but the first are known in some places alone, and have one channel more, which says where
        (none, if left out). options: as of SpatiallyAdaptiveNorm. UserError if a width is missing, or if masked maps
        should have two projections.
        """
        super().__init__()
        count = len(map_channels)
        widths = [num_filters] * count if isinstance(num_filters, int) else list(num_filters)
        if len(widths) < count:
            what = f"has {len(widths)} widths, but {count} maps modulate some of the blocks"
            raise UserError(what, where="activation_norm_params.num_filters", code="too-few-widths")
        if any(is_masked) and separate_projection:
            what = "cannot be used for a map that is known in some places alone"
            raise UserError(what, where="activation_norm_params.separate_projection", code="not-supported")
        self.of_map = nn.ModuleList()
        for index, (inputs, width) in enumerate(zip(map_channels, widths)):
            if index < len(is_masked) and is_masked[index]:
                self.of_map.append(MaskedSpatiallyAdaptiveNorm(channels, inputs, num_filters=width, **options))
            else:
                inner = nn.Identity() if index else norm
                self.of_map.append(
                    SpatiallyAdaptiveNorm(
                        channels,
                        inputs,
                        norm=inner,
                        num_filters=width,
                        separate_projection=separate_projection,
                        **options,
                    )
                )

    def freeze_map(self, index: int) -> None:
        """No gradient for what modulates by the map with this index."""
        self.of_map[index].requires_grad_(False)

    def forward(self, x: Tensor, first: Tensor | None, *others: Tensor | None) -> Tensor:
        """x: N x C x H x W, maps: N x their channels x h x w, resized by nearest neighbor -> N x C x H x W."""
        for modulate, condition in zip(self.of_map, (first, *others)):
            if condition is not None:
                at_size = condition
                if condition.shape[-2:] != x.shape[-2:]:
                    at_size = F.interpolate(condition, size=x.shape[-2:], mode="nearest")
                x = modulate(x, PartialMap(at_size, None))
        return x


MULTI_SPADE_RULES = (
    (r"\.of_map\.(\d)\.mlp\.0\.", r".mlps.\1.0.layers.conv."),
    (r"\.of_map\.(\d)\.mlp\.2\.", r".mlps.\1.1.layers.conv."),
    (r"\.of_map\.(\d)\.(gamma|beta)\.", r".\2s.\1.layers.conv."),
    (r"\.of_map\.0\.norm\.", ".norm."),
)
"""Rules from the names of these norms to the reference's (reference_names.py), for the networks that have them."""
