"""The order of convolution, norm and nonlinearity in the two blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct, NoNorm, NormActConv
from imagier.nn.conv import conv2d
from imagier.nn.norm import AdaptiveNorm, norm2d


def test_conv_norm_act_convolves_then_normalises_then_bends() -> None:
    torch.manual_seed(0)
    conv = conv2d(3, 4, 3)
    block = ConvNormAct(conv, norm2d("instance", 4), nn.LeakyReLU(LEAKY_SLOPE))
    x = torch.randn(2, 3, 6, 7)
    normal = F.instance_norm(F.conv2d(x, conv.weight, conv.bias))
    torch.testing.assert_close(block(x), torch.where(normal > 0, normal, 0.2 * normal))


def test_norm_act_conv_normalises_then_bends_then_convolves() -> None:
    torch.manual_seed(0)
    conv = conv2d(3, 4, 3)
    norm = AdaptiveNorm(3, 5, norm=norm2d("instance", 3))
    block = NormActConv(norm, nn.LeakyReLU(LEAKY_SLOPE), conv)
    x, code = torch.randn(2, 3, 6, 7), torch.randn(2, 5)
    normal = norm(x, code)
    bent = torch.where(normal > 0, normal, 0.2 * normal)
    torch.testing.assert_close(block(x, code), F.conv2d(bent, conv.weight, conv.bias))


def test_no_norm_ignores_its_condition() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert NoNorm()(x, None) is x
