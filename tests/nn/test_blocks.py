"""Convolution blocks and residual blocks against the same in plain functions of their weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from second_way import NORMS, adaptive, residual, weights_of
from torch import Tensor, nn

from imagier.nn.blocks import (
    LEAKY_SLOPE,
    ConvNormAct,
    Noise,
    NoNorm,
    NormActConv,
    ResBlock,
    nonlinearity,
)
from imagier.nn.conv import conv2d
from imagier.nn.norm import AdaptiveNorm, norm2d
from imagier.nn.resize import upsample2x


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_conv_norm_act_convolves_then_normalizes_then_bends() -> None:
    conv = conv2d(3, 4, 3)
    block = ConvNormAct(conv, norm2d("instance", 4), nn.LeakyReLU(LEAKY_SLOPE))
    x = torch.randn(2, 3, 6, 7)
    normal = F.instance_norm(F.conv2d(x, conv.weight, conv.bias))
    torch.testing.assert_close(block(x), torch.where(normal > 0, normal, 0.2 * normal))


def test_norm_act_conv_normalizes_then_bends_then_convolves() -> None:
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


def test_noise_is_the_same_in_all_channels_and_another_in_every_sample_and_call() -> None:
    noise = Noise()
    x = torch.randn(2, 3, 20, 30)
    assert torch.equal(noise(x), x)  # it starts with none
    nn.init.constant_(noise.scale, 0.5)
    added = (noise(x) - x) / 0.5
    torch.testing.assert_close(added, added[:, :1].expand_as(x))
    assert abs(added.mean()) < 0.1 and abs(added.std() - 1) < 0.1
    assert (added[0] - added[1]).abs().mean() > 0.5
    assert not torch.equal(noise(x), noise(x))


@pytest.mark.parametrize("last", [False, True])
def test_noise_comes_right_after_the_convolution(last: bool) -> None:
    conv = conv2d(3, 4, 3)
    parts = (conv, norm2d("instance", 4), nn.ReLU())
    block = NormActConv(nn.Identity(), nn.ReLU(), conv, has_noise=True) if last else ConvNormAct(*parts, has_noise=True)
    nn.init.constant_(block.noise.scale, 2.0)
    x = torch.randn(2, 3, 8, 8)
    torch.manual_seed(1)
    found = block(x)
    torch.manual_seed(1)
    noise = 2 * torch.randn(2, 1, 6, 6)
    if last:
        expected = F.conv2d(F.relu(x), conv.weight, conv.bias) + noise
    else:
        expected = F.relu(F.instance_norm(F.conv2d(x, conv.weight, conv.bias) + noise))
    torch.testing.assert_close(found, expected)


def res_block(inputs: int, outputs: int, norm: str, **options: object) -> ResBlock:
    block = ResBlock(
        inputs,
        outputs,
        norm=lambda channels: norm2d(norm, channels),
        act=lambda: nn.LeakyReLU(LEAKY_SLOPE),
        **options,
    )
    block.double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return block


@pytest.mark.parametrize("order", ["CNACNA", "CNACN", "NACNAC"])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (3, 5), (5, 3)])
@pytest.mark.parametrize(("norm", "weight_norm"), [("none", "spectral"), ("instance", "none"), ("layer_2d", "weight")])
@pytest.mark.parametrize(
    ("kernel", "mode", "noise"), [(3, "zeros", True), (5, "reflect", False), (3, "circular", True)]
)
def test_a_residual_block_is_that_of_the_formulas(
    order: str, inputs: int, outputs: int, norm: str, weight_norm: str, kernel: int, mode: str, noise: bool
) -> None:
    block = res_block(
        inputs,
        outputs,
        norm,
        order=order,
        kernel_size=kernel,
        padding_mode=mode,
        weight_norm=weight_norm,
        has_noise=noise,
    )
    weights = weights_of(nn.ModuleDict({"it": block}))
    x = torch.randn(2, inputs, 7, 9, dtype=torch.float64)
    torch.manual_seed(1)
    found = block(x)
    torch.manual_seed(1)
    expected = residual(
        weights,
        "it",
        x,
        order=order,
        mode=mode,
        norm=NORMS[norm],
        act=lambda y: F.leaky_relu(y, 0.2),
        padding=kernel // 2,
    )
    torch.testing.assert_close(found, expected)
    assert block.block_0.conv.out_channels == min(inputs, outputs)
    assert any(".conv_block_s." in name for name in weights) == (inputs != outputs)


@pytest.mark.parametrize("order", ["CNACNA", "NACNAC"])
def test_all_norms_of_a_residual_block_see_its_condition_that_of_the_shortcut_too(order: str) -> None:
    block = ResBlock(
        3,
        4,
        norm=lambda channels: AdaptiveNorm(channels, 2, norm=norm2d("layer_2d", channels)),
        act=nn.ReLU,
        order=order,
    ).double()
    code = torch.randn(2, 2, dtype=torch.float64)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    expected = residual(
        weights_of(nn.ModuleDict({"it": block})),
        "it",
        x,
        order=order,
        mode="zeros",
        norm=adaptive(code, NORMS["layer_2d"]),
        act=F.relu,
    )
    torch.testing.assert_close(block(x, code), expected)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("none", lambda x: x),
        ("relu", lambda x: x.clamp(min=0)),
        ("leakyrelu", lambda x: torch.max(x, 0.2 * x)),
        ("tanh", lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
        ("sigmoid", lambda x: 1 / (1 + (-x).exp())),
    ],
)
def test_a_nonlinearity_is_the_function_of_its_name(kind: str, formula: object) -> None:
    x = torch.linspace(-3, 3, 31, dtype=torch.float64)
    found: Tensor = nonlinearity(kind)(x)
    torch.testing.assert_close(found, formula(x))


def test_a_doubled_map_has_every_value_four_times() -> None:
    x = torch.randn(2, 3, 4, 5)
    expected = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(upsample2x(x), expected)
