"""The patch discriminator's layers, and the pyramid of sizes that it sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.norm import Norm
from imagier.nn.patch import PatchDiscriminator, downsample2x


def discriminator(
    *, num_layers: int, kernel_size: int = 3, norm: Norm = "none", max_num_filters: int = 16
) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(
        5,
        num_filters=4,
        max_num_filters=max_num_filters,
        num_layers=num_layers,
        kernel_size=kernel_size,
        activation_norm_type=norm,
        weight_norm_type="none",
    )


@pytest.mark.parametrize("kernel_size", [3, 4])
@pytest.mark.parametrize("num_layers", [0, 1, 3, 5])
def test_layers_are_those_of_the_specification(num_layers: int, kernel_size: int) -> None:
    """Widths double up to the limit; all strides are 2 but that of the last layer before the scores."""
    net = discriminator(num_layers=num_layers, kernel_size=kernel_size)
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    widths = [4, 8, 16, 16, 16, 16][: num_layers + 1]
    assert [c.out_channels for c in convs] == [*widths, 1]
    assert [c.in_channels for c in convs] == [5, *widths]
    assert [c.stride[0] for c in convs] == ([2] * num_layers + [1, 1] if num_layers else [2, 1])
    assert [c.kernel_size[0] for c in convs] == [kernel_size] * (num_layers + 1) + [3]
    assert {c.padding[0] for c in convs} == {1}


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_features_are_the_activations_of_all_layers_and_scores_are_linear_in_the_last(norm: Norm) -> None:
    net = discriminator(num_layers=3, norm=norm)
    x = torch.randn(2, 5, 32, 48)
    scores, features = net(x)
    assert [tuple(f.shape[1:]) for f in features] == [(4, 16, 24), (8, 8, 12), (16, 4, 6), (16, 4, 6)]
    for layer, feature in zip(net.layers, features):
        x = F.conv2d(x, layer.conv.weight, layer.conv.bias, layer.conv.stride, 1)
        x = F.leaky_relu(F.instance_norm(x) if norm == "instance" else x, 0.2)
        torch.testing.assert_close(feature, x)
    last = net.layers[-1].conv
    torch.testing.assert_close(scores, F.conv2d(features[-1], last.weight, last.bias, padding=1))
    assert scores.shape == (2, 1, 4, 6)


def test_a_score_judges_a_patch_only() -> None:
    """For two layers the patch is 23 pixels wide (3, then 7, 15, 23: each 3 x 3 adds twice the stride so far)."""
    net = discriminator(num_layers=2)
    x = torch.randn(1, 5, 64, 64, requires_grad=True)
    net(x)[0][0, 0, 8, 8].backward()
    seen = x.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [23, 23]


@pytest.mark.parametrize(("height", "width"), [(8, 6), (9, 7), (5, 12)])
def test_half_size_rounds_down_and_samples_from_corner_to_corner(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    half = downsample2x(x)
    assert half.shape == (2, 3, height // 2, width // 2)
    torch.testing.assert_close(half, torch.from_numpy(sampled(x)))


def sampled(x: Tensor) -> np.ndarray:
    """Linear interpolation, first down the columns, then along the rows."""
    rows, columns = (np.linspace(0, size - 1, size // 2) for size in x.shape[-2:])
    down = np.apply_along_axis(lambda line: np.interp(rows, np.arange(len(line)), line), 2, x.numpy())
    return np.apply_along_axis(lambda line: np.interp(columns, np.arange(len(line)), line), 3, down)
