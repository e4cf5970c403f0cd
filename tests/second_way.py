"""The blocks of translation networks once more, as functions of weights under the reference's names."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.reference_names import Rules, reference_names

Weights = dict[str, Tensor]
NormFn = Callable[[Weights, str, Tensor], Tensor]


def weights_of(network: nn.Module, rules: Rules = ()) -> Weights:
    """A network's state under the reference's names."""
    state = network.state_dict()
    return {theirs: state[ours] for ours, theirs in reference_names(state, rules).items()}


def conv(w: Weights, name: str, x: Tensor, stride: int = 1, padding: int = 0, mode: str = "zeros") -> Tensor:
    """A convolution in eval mode, with whatever weight norm the weights tell of."""
    if f"{name}.weight_orig" in w:
        weight = w[f"{name}.weight_orig"]
        weight = weight / torch.einsum("o,ok,k->", w[f"{name}.weight_u"], weight.flatten(1), w[f"{name}.weight_v"])
    elif f"{name}.weight_g" in w:
        direction = w[f"{name}.weight_v"]
        weight = w[f"{name}.weight_g"] * direction / direction.flatten(1).norm(dim=1)[:, None, None, None]
    else:
        weight = w[f"{name}.weight"]
    if padding and mode != "zeros":
        x, padding = F.pad(x, [padding] * 4, mode=mode), 0
    return F.conv2d(x, weight, w.get(f"{name}.bias"), stride, padding)


def no_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """x."""
    return x


def instance(w: Weights, name: str, x: Tensor) -> Tensor:
    """Instance norm, with an affine part where there are weights for it."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    x = (x - mean) / ((x - mean).square().mean(dim=(2, 3), keepdim=True) + 1e-5).sqrt()
    if f"{name}.weight" in w:
        x = x * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]
    return x


def layer_2d(w: Weights, name: str, x: Tensor) -> Tensor:
    """Layer norm of a whole image."""
    rows = x.flatten(1)
    rows = (rows - rows.mean(dim=1, keepdim=True)) / (rows.std(dim=1, keepdim=True) + 1e-5)
    return rows.view_as(x) * w[f"{name}.gamma"][:, None, None] + w[f"{name}.beta"][:, None, None]


NORMS: dict[str, NormFn] = {"none": no_norm, "instance": instance, "layer_2d": layer_2d}


def adaptive(code: Tensor, inner: NormFn) -> NormFn:
    """A norm whose scale and shift come from a code N x D."""

    def norm(w: Weights, name: str, x: Tensor) -> Tensor:
        both = code @ w[f"{name}.fc.layers.conv.weight"].T + w[f"{name}.fc.layers.conv.bias"]
        gamma, beta = both[:, : x.shape[1], None, None], both[:, x.shape[1] :, None, None]
        return inner(w, f"{name}.norm", x) * (1 + gamma) + beta

    return norm


def block(
    w: Weights,
    name: str,
    x: Tensor,
    *,
    order: str = "CNA",
    padding: int = 0,
    stride: int = 1,
    mode: str = "zeros",
    norm: NormFn = no_norm,
    act: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """A convolution block; noise after the convolution where there is a weight for it."""
    for letter in order:
        if letter == "C":
            x = conv(w, f"{name}.layers.conv", x, stride, padding, mode)
            if f"{name}.layers.noise.scale" in w:
                noise = torch.randn(len(x), 1, *x.shape[2:], dtype=x.dtype)
                x = x + w[f"{name}.layers.noise.scale"] * noise
        elif letter == "N":
            x = norm(w, f"{name}.layers.norm", x)
        elif act is not None:
            x = act(x)
    return x


def residual(
    w: Weights,
    name: str,
    x: Tensor,
    *,
    order: str,
    mode: str,
    norm: NormFn,
    act: Callable[[Tensor], Tensor],
    padding: int = 1,
) -> Tensor:
    """A residual block; with a learned shortcut where there are weights for one."""
    first, second = order[:3], order[3:]
    dx = block(w, f"{name}.conv_block_0", x, order=first, padding=padding, mode=mode, norm=norm, act=act)
    dx = block(w, f"{name}.conv_block_1", dx, order=second, padding=padding, mode=mode, norm=norm, act=act)
    if any(key.startswith(f"{name}.conv_block_s.") for key in w):
        x = block(w, f"{name}.conv_block_s", x, order=first, norm=norm)
    return x + dx


def content(w: Weights, name: str, x: Tensor, *, halvings: int, blocks: int, order: str, norm: NormFn) -> Tensor:
    """The content code of images."""
    x = block(w, f"{name}.model.0", x, padding=3, mode="reflect", norm=norm, act=F.relu)
    for index in range(1, halvings + 1):
        x = block(w, f"{name}.model.{index}", x, padding=1, stride=2, mode="reflect", norm=norm, act=F.relu)
    for index in range(halvings + 1, halvings + 1 + blocks):
        x = residual(w, f"{name}.model.{index}", x, order=order, mode="reflect", norm=norm, act=F.relu)
    return x


def style(w: Weights, name: str, x: Tensor, *, halvings: int, norm: NormFn) -> Tensor:
    """The style code of images, N x Z x 1 x 1."""
    halvings = max(halvings, 2)
    x = block(w, f"{name}.model.0", x, padding=3, mode="reflect", norm=norm, act=F.relu)
    for index in range(1, halvings + 1):
        x = block(w, f"{name}.model.{index}", x, padding=1, stride=2, mode="reflect", norm=norm, act=F.relu)
    return conv(w, f"{name}.model.{halvings + 2}", x.mean(dim=(2, 3), keepdim=True))


def mlp(w: Weights, name: str, x: Tensor) -> Tensor:
    """N x Z x 1 x 1 -> N x P, by all layers that there are weights for."""
    x = x[:, :, 0, 0]
    index = 0
    while f"{name}.model.{index}.layers.conv.weight" in w:
        layer = f"{name}.model.{index}.layers.conv"
        x = F.relu(x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"])
        index += 1
    assert index >= 2
    return x


def decoded(
    w: Weights,
    name: str,
    x: Tensor,
    *,
    doublings: int,
    blocks: int,
    order: str,
    norm: NormFn,
    output: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Images of content codes."""
    for index in range(blocks):
        x = residual(w, f"{name}.decoder.{index}", x, order=order, mode="reflect", norm=norm, act=F.relu)
    for index in range(doublings):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        up = f"{name}.decoder.{blocks + 2 * index + 1}"
        x = block(w, up, x, padding=2, mode="reflect", norm=norm, act=F.relu)
    return block(w, f"{name}.decoder.{blocks + 2 * doublings}", x, padding=3, mode="reflect", act=output)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return torch.where(x > 0, x, 0.2 * x)


def residual_discriminator(
    w: Weights, x: Tensor, *, layers: int, first_kernel: int, mode: str, norm: NormFn, order: str, pool: bool
) -> tuple[Tensor, Tensor]:
    """Score and features of images, in eval mode."""
    x = block(w, "model.0", x, padding=(first_kernel - 1) // 2, mode=mode, norm=norm, act=leaky)
    for index in range(layers):
        x = residual(w, f"model.{1 + 2 * index}", x, order=order, mode=mode, norm=norm, act=leaky)
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        if f"model.{2 + 2 * index}.kernel" in w:
            x = blurred_half(x)
        else:
            x = x[:, :, :height, :width]
            x = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
    features = x.mean(dim=(2, 3), keepdim=True) if pool else block(w, f"model.{2 * layers + 1}", x, act=leaky)
    return features[:, :, 0, 0] @ w["classifier.weight"].T + w["classifier.bias"], features


def blurred_half(x: Tensor) -> Tensor:
    """A low-pass filter (1, 3, 3, 1) / 8 along both sides, zeros outside, and every second sample."""
    x = F.pad(x, [1, 1, 1, 1])
    for dim in (2, 3):
        size = x.shape[dim] - 3
        taps = [x.narrow(dim, tap, size) * factor / 8 for tap, factor in enumerate((1, 3, 3, 1))]
        x = sum(taps)
    return x[:, :, ::2, ::2]
