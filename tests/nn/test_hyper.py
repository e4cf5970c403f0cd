"""Layers with generated weights do with each sample what plain layers with its weights do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.hyper import HyperConv2d, HyperResBlock, HyperSpatiallyAdaptiveNorm, Weights
from imagier.nn.label_embedder import EmbedParams, LabelEmbedder
from imagier.nn.norm import MultiSpatiallyAdaptiveNorm

RNG = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RNG)


def same_for_all(samples: int, conv: nn.Conv2d) -> Weights:
    """The weights of a plain convolution, given to every sample."""
    assert conv.bias is not None
    return Weights(conv.weight.expand(samples, -1, -1, -1, -1), conv.bias.expand(samples, -1))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (1, 2)])
def test_each_sample_is_convolved_with_its_own_weights(kernel: int, stride: int) -> None:
    x, weights = drawn(3, 4, 8, 6), Weights(drawn(3, 5, 4, kernel, kernel), drawn(3, 5))
    expected = [
        F.conv2d(x[n : n + 1], weights.weight[n], weights.bias[n], stride=stride, padding=kernel // 2) for n in range(3)
    ]
    torch.testing.assert_close(HyperConv2d(stride=stride)(x, weights), torch.cat(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("second", [True, False])
def test_a_norm_with_generated_weights_is_one_with_the_same_weights_of_its_own(second: bool) -> None:
    options = {"num_filters": 0, "kernel_size": 3}
    plain = MultiSpatiallyAdaptiveNorm(6, [4, 5], norm=nn.InstanceNorm2d(6), **options)
    hyper = HyperSpatiallyAdaptiveNorm(6, [4, 5], norm=nn.InstanceNorm2d(6), **options)
    hyper.others.of_map[0].load_state_dict(plain.of_map[1].state_dict())
    x, first, other = drawn(2, 6, 8, 8), drawn(2, 4, 4, 4), drawn(2, 5, 8, 8) if second else None
    own = plain.of_map[0].mlp[0]  # type: ignore[union-attr, index]
    found = hyper(x, first, other, weights=same_for_all(2, own))  # type: ignore[arg-type]
    torch.testing.assert_close(found, plain(x, first, other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["encoder", "encoderdecoder"])
def test_an_encoder_of_labels_with_generated_weights_is_one_with_the_same_weights_of_its_own(arch: str) -> None:
    params = EmbedParams(arch=arch, num_filters=2, num_downsamples=3, weight_norm_type="none")  # type: ignore[arg-type]
    plain, hyper = LabelEmbedder(3, params), LabelEmbedder(3, params, num_hyper_layers=2)
    layers = plain.down if arch == "encoder" else plain.up
    hyper.load_state_dict({name: x for name, x in plain.state_dict().items() if name in hyper.state_dict()})
    assert len(plain.state_dict()) - len(hyper.state_dict()) == 4  # weight and bias, twice
    label = drawn(2, 3, 16, 16)
    weights = [same_for_all(2, layers[level].conv) for level in range(2)]  # type: ignore[arg-type]
    for one, other in zip(hyper(label, weights), plain(label)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("order", "normed"), [("NAC", [4, 2, 4]), ("CNA", [2, 2, 2])])
def test_blocks_norm_before_or_after_their_convolutions(order: str, normed: list[int]) -> None:
    widths: list[int] = []

    def norm(channels: int) -> MultiSpatiallyAdaptiveNorm:
        widths.append(channels)
        return MultiSpatiallyAdaptiveNorm(channels, [3], norm=nn.Identity(), num_filters=0, kernel_size=1)

    block = HyperResBlock(
        4,
        2,
        norm=norm,
        order=order,  # type: ignore[arg-type]
        kernel_size=3,
        weight_norm="none",
        has_hyper_conv=True,
    )
    convs = [Weights(drawn(2, 2, 4, 3, 3), drawn(2, 2)), Weights(drawn(2, 2, 2, 3, 3), drawn(2, 2))]
    made = block(drawn(2, 4, 8, 8), [drawn(2, 3, 8, 8)], None, [*convs, Weights(drawn(2, 2, 4, 1, 1), drawn(2, 2))])
    assert made.shape == (2, 2, 8, 8) and widths == normed
    assert not any("conv" in name for name, _ in block.named_parameters() if "mlp" not in name)
