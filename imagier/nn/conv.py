"""Convolution and linear layers, plain or with a norm on their weight."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm as reparametrize_weight

from imagier.errors import UserError
from imagier.nn import winograd
from imagier.nn.padding import pad
from imagier.nn.precision import full_precision
from imagier.nn.resize import upsample2x
from imagier.nn.upsampled_conv import should_use_subpixel, upsampled_conv2d

WeightNorm = Literal["none", "spectral", "weight"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    bias: bool = True,
    padding_mode: PaddingMode = "zeros",
    weight_norm: WeightNorm = "none",
    upsample: bool = False,
) -> Conv2d:
    """A 2-d convolution, N x in x H x W -> N x out x H' x W', with the given norm on its weight.

    upsample: first upsample the input by 2, by nearest neighbor.
    """
    check_width(in_channels, out_channels)
    layer_type = SpectralConv2d if weight_norm == "spectral" else Conv2d
    layer = layer_type(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        bias=bias,
        padding_mode=padding_mode if padding else "zeros",  # without padding, torch would still copy the input
    )
    layer.upsample = upsample
    return reparametrize_weight(layer) if weight_norm == "weight" else layer


def linear(in_features: int, out_features: int, *, bias: bool = True, weight_norm: WeightNorm = "none") -> nn.Linear:
    """A linear layer, N x in -> N x out, with the given norm on its weight."""
    check_width(in_features, out_features)
    layer_type = SpectralLinear if weight_norm == "spectral" else nn.Linear
    layer = layer_type(in_features, out_features, bias=bias)
    return reparametrize_weight(layer) if weight_norm == "weight" else layer


def check_width(inputs: int, outputs: int) -> None:
    """UserError if a layer would have no channels: its network halves them too often."""
    if min(inputs, outputs) < 1:
        what = f"leaves a layer of {inputs} x {outputs} channels"
        raise UserError(what, advice="give the network more filters, or fewer layers", code="no-channels")


class SpectralNorm(nn.Module):
    """Largest singular value of a weight, by one power iteration per training forward (Miyato et al. 2018, alg. 1).

    Buffers `u` [rows] and `v` [columns] are the running singular vectors of the weight seen as a matrix whose rows
    are its dimension 0. In eval mode they stay as they are.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(columns), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """Weight of any shape -> its spectral norm, a scalar that is differentiable in the weight."""
        with full_precision(weight):  # half precision spoils the power iteration
            return self._iterate(weight) if self.training else self.current(weight)

    def current(self, weight: Tensor) -> Tensor:
        """The spectral norm of a weight by the stored singular vectors, without a power iteration."""
        # Copies, because a later forward overwrites u and v before this one's backward has used them.
        if not _is_channels_last(weight):
            return self.u.clone() @ (weight.flatten(1) @ self.v.clone())
        return self.u.clone() @ (weight.permute(0, 2, 3, 1).flatten(1) @ self._v_of_channels_last(weight).flatten())

    def _iterate(self, weight: Tensor) -> Tensor:
        iterate = _opaque_power_iteration if torch.compiler.is_compiling() else _power_iteration
        is_turned = _is_channels_last(weight)
        matrix = (weight.permute(0, 2, 3, 1) if is_turned else weight).flatten(1)  # never a copy
        with torch.no_grad():
            stored = self._v_of_channels_last(weight) if is_turned else self.v
            moving = stored.flatten()  # a copy if turned
            u, v = iterate(matrix.detach(), self.u, moving)
            if is_turned:
                stored.copy_(moving.view_as(stored))
        return u @ (matrix @ v)

    def _v_of_channels_last(self, weight: Tensor) -> Tensor:
        """v as rows x columns x channels of a convolution's weight, a view."""
        return self.v.view(weight.shape[1:]).permute(1, 2, 0)


def _is_channels_last(weight: Tensor) -> bool:
    """Whether a convolution's weight lies in memory so that `flatten(1)` would copy it."""
    return weight.dim() == 4 and not weight.is_contiguous()


def _power_iteration(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Moves u and v in place; returns copies, because the next forward moves them before backward has used them."""
    v.copy_(F.normalize(matrix.T @ u, dim=0))
    u.copy_(F.normalize(matrix @ v, dim=0))
    return u.clone(), v.clone()


# A compiler that sees through the copies would keep u and v themselves for backward.
_opaque_power_iteration = torch.library.custom_op(
    "imagier::power_iteration",
    _power_iteration,
    mutates_args=("u", "v"),
    schema="(Tensor matrix, Tensor(a!) u, Tensor(b!) v) -> (Tensor, Tensor)",
)


@_opaque_power_iteration.register_fake
def _(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(u), torch.empty_like(v)


class Conv2d(nn.Conv2d):
    """A convolution that can be given a subset of its input channels if the others are 0."""

    upsample = False
    """Upsample the input by 2 first, by nearest neighbor."""
    has_winograd = False
    """Take Winograd's algorithm where it is faster."""
    has_subpixel = False
    """With `upsample`: convolve before it where that is faster."""

    def forward(self, x: Tensor, channels: Tensor | None = None) -> Tensor:
        """N x in x H x W -> N x out x H' x W'; with `channels` [K], x is N x K x H x W and holds only those."""
        return self._conv_forward(x, _select(self.weight, channels), self.bias)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel_size == (1, 1) and self.stride != (1, 1) and not self.padding[0]:
            # The same. Its backward in channels_last corrupts the memory of CPUs (torch 2.13).
            rows, columns = self.stride
            return F.conv2d(x[..., ::rows, ::columns], weight, bias)
        if self.upsample:
            if self.has_subpixel and self._keeps_size and should_use_subpixel(x, weight, self.padding_mode):
                y = upsampled_conv2d(x, weight, padding_mode=self.padding_mode, convolve=self._convolve)
                return _add_bias(y, bias)
            x = upsample2x(x)
        padding = self.padding
        # Of images smaller than the stride, in bfloat16 on CPUs with AMX, torch 2.13 does not set the gradient of the
        # kernel where it meets nothing but padding. If the zeros are in the image, it does.
        if self.padding_mode != "zeros" or min(x.shape[-2:]) < self.stride[0]:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = pad(x, self._reversed_padding_repeated_twice, mode), (0, 0)
        around = int(padding[0])
        if self.has_winograd and self._keeps_size and winograd.should_use_winograd(x, weight, around):
            return _add_bias(winograd.conv2d(x, weight, around), bias)
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    @property
    def _keeps_size(self) -> bool:
        rows, columns = self.kernel_size
        return (
            rows == columns == 2 * int(self.padding[0]) + 1
            and self.stride == self.dilation == (1, 1)
            and self.groups == 1
        )

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.has_winograd and winograd.should_use_winograd(x, weight, 0):
            return winograd.conv2d(x, weight)
        return F.conv2d(x, weight)


def choose_algorithms(network: nn.Module, *, has_winograd: bool, has_subpixel: bool) -> None:
    """Which algorithms all convolutions of a network may take, beside the direct one."""
    for module in network.modules():
        if isinstance(module, Conv2d):
            module.has_winograd, module.has_subpixel = has_winograd, has_subpixel


class SpectralConv2d(Conv2d):
    """A convolution whose weight is divided by its spectral norm."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.spectral = SpectralNorm(self.weight)

    def forward(self, x: Tensor, channels: Tensor | None = None) -> Tensor:
        norm = self.spectral(self.weight)
        weight = _select(self.weight, channels)
        if weight[0].numel() < x[:, 0].numel():
            return self._conv_forward(x, weight / norm, self.bias)
        # The same result, dividing the smaller of the two: in deep layers there are more weights than outputs.
        return _add_bias(self._conv_forward(x, weight, None) / norm, self.bias)

    @torch.no_grad()
    def fold(self) -> Conv2d:
        """A plain convolution that holds the normalized weight."""
        plain = Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
        )
        plain.upsample, plain.has_winograd, plain.has_subpixel = self.upsample, self.has_winograd, self.has_subpixel
        return _take_over(plain, self, self.spectral)


class SpectralLinear(nn.Linear):
    """A linear layer whose weight is divided by its spectral norm."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.spectral = SpectralNorm(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / self.spectral(self.weight), self.bias)

    @torch.no_grad()
    def fold(self) -> nn.Linear:
        """A plain linear layer that holds the normalized weight."""
        return _take_over(nn.Linear(self.in_features, self.out_features, self.bias is not None), self, self.spectral)


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias[:, None, None].to(y.dtype)  # half precision stays so


def _select(weight: Tensor, channels: Tensor | None) -> Tensor:
    return weight if channels is None else weight.index_select(1, channels)


_Plain = TypeVar("_Plain", Conv2d, nn.Linear)


def _take_over(plain: _Plain, source: nn.Conv2d | nn.Linear, spectral: SpectralNorm) -> _Plain:
    plain.to(source.weight.device, source.weight.dtype)
    plain.weight.copy_(source.weight / spectral.current(source.weight))
    if plain.bias is not None and source.bias is not None:
        plain.bias.copy_(source.bias)
    return plain
