"""A trained network as plain layers, for whoever only runs it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from imagier.nn.average import fold_spectral_norm
from imagier.nn.blocks import Noise
from imagier.nn.conv import choose_algorithms
from imagier.nn.instance_norm import InstanceNorm2d


def make_plain(network: nn.Module) -> nn.Module:
    """A copy in float32 and eval mode, without gradients, whose convolutions are direct ones.

    Norms of weights are folded into the weights, and instance norms are torch's, which exporters know. The noise that
    some layers add is left out: its mean is 0.
    """
    plain = fold_spectral_norm(network)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Noise):
                setattr(module, name, nn.Identity())
            elif isinstance(child, InstanceNorm2d):
                setattr(module, name, _use_torch_norm(child))
            elif is_parametrized(child, "weight"):
                setattr(module, name, _fold_weight(child))
    choose_algorithms(plain, has_winograd=False, has_subpixel=False)
    for tensor in (*plain.parameters(), *plain.buffers()):
        tensor.data = tensor.data.contiguous()
    return plain.float().eval().requires_grad_(False)


def _use_torch_norm(norm: InstanceNorm2d) -> nn.InstanceNorm2d:
    plain = nn.InstanceNorm2d(norm.num_features, eps=norm.eps, affine=norm.affine)
    plain.load_state_dict(norm.state_dict())
    return plain


def _fold_weight(layer: nn.Module) -> nn.Module:
    """A layer as it was before its weight was made of others, with the weight that it has now.

    torch's own way takes the weight from the class of the layer, and so from all copies of it.
    """
    cls: type[nn.Module] = type(layer).__mro__[1]
    plain = cls.__new__(cls)
    modules = {name: part for name, part in layer._modules.items() if name != "parametrizations"}
    weight = nn.Parameter(cast(Tensor, layer.weight).detach().clone())
    plain.__dict__ |= {**layer.__dict__, "_modules": modules, "_parameters": {**layer._parameters, "weight": weight}}
    return plain
