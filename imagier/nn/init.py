"""Initialization of weights."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Init = Literal["normal", "xavier", "xavier_uniform", "kaiming", "kaiming_linear", "orthogonal", "none"]

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)


class Pretrained(nn.Module):
    """The parts of a network that its constructor loads: `initialize` leaves everything inside alone.

    Inherit from it, or wrap a network in it (`self.encoder = Pretrained(encoder)`); it is called like that one.
    """

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        if network is not None:
            self.network = network

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the wrapped network returns."""
        return self.network(*args, **kwargs)


@torch.no_grad()
def initialize(network: nn.Module, kind: Init, gain: float, bias_gain: float | None = None) -> None:
    """Draws the weights of all convolutions, linear layers and embeddings; sets all biases, those of norms too.

    normal: N(0, gain^2). xavier(_uniform): Glorot & Bengio 2010. kaiming(_linear): He et al. 2015, fan in, for a
    (leaky ReLU / linear) nonlinearity, times gain. orthogonal: Saxe et al. 2014. none: nothing is touched.
    Biases become 0, or N(0, bias_gain^2). Frozen parameters (`requires_grad` False) keep their values, each by itself:
    a free bias is set also where the weight is frozen. All inside a `Pretrained` module keeps its values, too.
    """
    if kind == "none":
        return
    loaded = {part for module in network.modules() if isinstance(module, Pretrained) for part in module.modules()}
    for module in network.modules():
        if module in loaded:
            continue
        if isinstance(module, _LAYERS):
            parameters = _find_weights(module)
            if parameters and all(parameter.requires_grad for parameter in parameters.values()):
                _set_weight(module, parameters, _draw(kind, torch.empty_like(module.weight), gain))
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter) and bias.requires_grad:
            bias.normal_(0, bias_gain) if bias_gain else bias.zero_()


def _find_weights(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The parameter that is the weight of a layer, or those that it is computed from, by their names."""
    named = layer.named_parameters()
    return {name: parameter for name, parameter in named if name.startswith(("weight", "parametrizations.weight."))}


def _set_weight(layer: nn.Module, parameters: dict[str, nn.Parameter], weight: Tensor) -> None:
    if parametrize.is_parametrized(layer, "weight"):
        layer.weight = weight  # goes through the parametrization, into its magnitude and direction
    elif "weight_g" in parameters:  # torch.nn.utils.weight_norm: a magnitude of 1 or more numbers, and a direction
        magnitude = parameters["weight_g"]
        parameters["weight_v"].copy_(weight)
        inner = [dim for dim in range(weight.dim()) if magnitude.dim() == 0 or magnitude.shape[dim] == 1]
        magnitude.copy_(torch.linalg.vector_norm(weight, dim=inner, keepdim=magnitude.dim() > 0))
    else:
        parameters.get("weight_orig", layer.weight).copy_(weight)  # type: ignore[operator]  # of utils.spectral_norm


def _draw(kind: str, weight: Tensor, gain: float) -> Tensor:
    if not weight.numel():
        return weight
    if kind == "normal":
        return nn.init.normal_(weight, 0, gain)
    if kind == "xavier":
        return nn.init.xavier_normal_(weight, gain)
    if kind == "xavier_uniform":
        return nn.init.xavier_uniform_(weight, gain)
    if kind == "orthogonal":
        return nn.init.orthogonal_(weight.contiguous(), gain)  # torch cannot do it in place in channels_last format
    nonlinearity_gain = math.sqrt(2) if kind == "kaiming" else 1.0
    fan_in = weight[0].numel()
    return nn.init.normal_(weight, 0, gain * nonlinearity_gain / math.sqrt(fan_in))
