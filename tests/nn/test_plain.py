"""A plain network computes what the trained one does, without norms of weights, noise and special convolutions."""

from __future__ import annotations

import torch
from torch import nn

from imagier.nn.blocks import ConvNormAct, Noise
from imagier.nn.conv import Conv2d, SpectralConv2d, conv2d, linear
from imagier.nn.instance_norm import InstanceNorm2d
from imagier.nn.norm import norm2d
from imagier.nn.plain import make_plain


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spectral = conv2d(3, 4, 3, padding=1, weight_norm="spectral")
        self.weight = conv2d(4, 4, 3, padding=1, weight_norm="weight")
        self.noisy = ConvNormAct(conv2d(4, 4, 1), norm2d("instance", 4), nn.ReLU(), has_noise=True)
        self.linear = linear(4, 2, weight_norm="weight")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.noisy(self.weight(self.spectral(x))).mean(dim=(2, 3)))


def test_it_computes_the_same_with_plain_layers_alone() -> None:
    net = Net().eval().to(memory_format=torch.channels_last)
    net.spectral.has_winograd = True
    with torch.no_grad():
        net.weight.parametrizations.weight.original0.mul_(3)
        net.noisy.noise.scale.zero_()
        net.noisy.norm.weight.uniform_(1, 2)
        x = torch.randn(2, 3, 8, 8)
        plain = make_plain(net)
        torch.testing.assert_close(plain(x), net(x))
    layers = [type(module) for module in plain.modules()]
    assert not {SpectralConv2d, Noise, InstanceNorm2d} & set(layers) and layers.count(Conv2d) == 3
    assert sorted(plain.state_dict()) == sorted(f"{n}.{p}" for n in LAYERS for p in ("weight", "bias"))
    assert not plain.spectral.has_winograd and plain.spectral.weight.is_contiguous()
    assert not any(parameter.requires_grad for parameter in plain.parameters())


LAYERS = ("spectral", "weight", "noisy.conv", "noisy.norm", "linear")


def test_noise_is_replaced_by_its_mean() -> None:
    net = Net().eval()
    with torch.no_grad():
        net.noisy.noise.scale.fill_(5.0)
        x = torch.randn(1, 3, 8, 8)
        plain = make_plain(net)
        assert torch.equal(plain(x), plain(x))
        net.noisy.noise.scale.zero_()
        torch.testing.assert_close(plain(x), net(x))
