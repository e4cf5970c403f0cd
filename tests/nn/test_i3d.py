"""I3D is the published network: its sizes by the paper's table, its numbers by plain functions, its file's names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.backbones import build_feature_network, list_networks
from imagier.nn.backbones.i3d import I3D, pad_same
from imagier.nn.backbones.network import FeatureNetwork

# Szegedy et al. 2015, table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
INCEPTION = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


def list_convs() -> dict[str, tuple[int, int, int]]:
    """Channels in, channels out, and size of each convolution, by its name in the published file."""
    convs = {"Conv3d_1a_7x7": (3, 64, 7), "Conv3d_2b_1x1": (64, 64, 1), "Conv3d_2c_3x3": (64, 192, 3)}
    channels = 192
    for name, (one, three_in, three, five_in, five, pool) in INCEPTION.items():
        convs |= {
            f"Mixed_{name}.b0": (channels, one, 1),
            f"Mixed_{name}.b1a": (channels, three_in, 1),
            f"Mixed_{name}.b1b": (three_in, three, 3),
            f"Mixed_{name}.b2a": (channels, five_in, 1),
            f"Mixed_{name}.b2b": (five_in, five, 3),
            f"Mixed_{name}.b3b": (channels, pool, 1),
        }
        channels = one + three + five + pool
    return convs


def make_weights() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    weights = {}
    for name, (channels, width, size) in list_convs().items():
        shape = width, channels, size, size, size
        weights[f"{name}.conv3d.weight"] = torch.randn(shape, generator=rng) * (2 / (channels * size**3)) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.bn.{part}"] = torch.rand(width, generator=rng) * 0.5 + (part.endswith(("weight", "var")))
    weights["logits.conv3d.weight"] = torch.randn(400, 1024, 1, 1, 1, generator=rng) / 32
    weights["logits.conv3d.bias"] = torch.randn(400, generator=rng)
    return weights


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return make_weights()


def tensorflow_same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's documentation: zeros before and after, by the remainder of the size."""
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    return total // 2, total - total // 2


def pad(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float = 0.0) -> Tensor:
    sides = [tensorflow_same(*each) for each in zip(x.shape[2:], kernel, stride)]
    return F.pad(x, [side for pair in reversed(sides) for side in pair], value=value)


def conv(x: Tensor, weights: dict[str, Tensor], name: str, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}.conv3d.weight"]
    x = F.conv3d(pad(x, kernel.shape[2:], (stride,) * 3), kernel, stride=stride)
    weight, bias, mean, variance = (
        weights[f"{name}.bn.{part}"].view(1, -1, 1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
    )
    return ((x - mean) / (variance + 0.001).sqrt() * weight + bias).relu()


def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return F.max_pool3d(pad(x, kernel, stride, value=-torch.inf), kernel, stride)


def compute(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The last block's output, by functions."""
    x = pool(conv(x, weights, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
    x = pool(conv(conv(x, weights, "Conv3d_2b_1x1"), weights, "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    for name in INCEPTION:
        if name in ("4b", "5b"):
            x = pool(x, (3, 3, 3), (2, 2, 2)) if name == "4b" else pool(x, (2, 2, 2), (2, 2, 2))
        block = f"Mixed_{name}"
        x = torch.cat(
            [
                conv(x, weights, f"{block}.b0"),
                conv(conv(x, weights, f"{block}.b1a"), weights, f"{block}.b1b"),
                conv(conv(x, weights, f"{block}.b2a"), weights, f"{block}.b2b"),
                conv(pool(x, (3, 3, 3), (1, 1, 1)), weights, f"{block}.b3b"),
            ],
            dim=1,
        )
    return x


def build(weights: dict[str, Tensor]) -> FeatureNetwork:
    return FeatureNetwork(I3D, ["logits"], weights, source="test")


def test_the_parameters_number_as_many_as_the_table_gives(weights: dict[str, Tensor]) -> None:
    convs = sum(channels * width * size**3 + 2 * width for channels, width, size in list_convs().values())
    count = sum(p.numel() for p in build(weights).parameters())
    assert count == convs + 1024 * 400 + 400 == 12_697_264


def test_it_has_the_names_of_the_published_file(weights: dict[str, Tensor]) -> None:
    keys = {key for key in build(weights).state_dict() if not key.endswith("num_batches_tracked")}
    assert keys == weights.keys()
    assert {"Mixed_3b.b0.conv3d.weight", "Mixed_5c.b3b.bn.running_var", "logits.conv3d.bias"} <= keys
    with pytest.raises(UserError) as error:
        build({key: tensor for key, tensor in weights.items() if key != "Mixed_4d.b2a.bn.bias"})
    assert error.value.code == "missing-tensor"


@torch.no_grad()
def test_it_computes_what_plain_functions_do(weights: dict[str, Tensor]) -> None:
    clips = torch.rand(1, 3, 9, 35, 50, generator=torch.Generator().manual_seed(1)) * 2 - 1
    network = build(weights)
    x = clips
    assert network._chain[15][0] == "Mixed_5c"
    for _, step in network._chain[:16]:
        x = step(x)
    expected = compute(clips, weights)
    assert expected.shape == (1, 1024, 2, 2, 2)
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_logits_are_the_mean_over_time(weights: dict[str, Tensor]) -> None:
    x = torch.rand(2, 1024, 4, 7, 7, generator=torch.Generator().manual_seed(1))
    pooled = [(x[:, :, t] + x[:, :, t + 1]).mean(dim=(2, 3)) / 2 for t in range(3)]
    matrix, bias = weights["logits.conv3d.weight"].flatten(1), weights["logits.conv3d.bias"]
    expected = sum(part @ matrix.T + bias for part in pooled) / 3
    for _, step in build(weights)._chain[16:]:
        x = step(x)
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2), (2, 2), (1, 1)])
def test_padding_is_that_of_tensorflow_by_its_definition(kernel: int, stride: int) -> None:
    """A window begins at place * stride - before; outside are zeros; there are ceil(size / stride) places."""
    rng = np.random.default_rng(0)
    for size in range(1, 10):
        row, weight = rng.random(size), rng.random(kernel)
        before = tensorflow_same(size, kernel, stride)[0]
        expected = [
            sum(
                weight[k] * row[at * stride - before + k] for k in range(kernel) if 0 <= at * stride - before + k < size
            )
            for at in range(-(-size // stride))
        ]
        for axis in range(3):
            shape, sizes, steps = [1, 1, 1, 1, 1], [1, 1, 1], [1, 1, 1]
            shape[axis + 2], sizes[axis], steps[axis] = size, kernel, stride
            x = pad_same(torch.from_numpy(row).view(shape), tuple(sizes), tuple(steps))
            found = F.conv3d(x, torch.from_numpy(weight).view(1, 1, *sizes), stride=steps)
            assert found.flatten().tolist() == pytest.approx(expected)


def test_a_missing_file_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    with pytest.raises(UserError, match=r"rgb_imagenet\.pt") as error:
        build_feature_network("i3d", ["logits"])
    assert error.value.code == "no-weight-file"
    assert not {"i3d", "clip_vitl14_336", "dinov2_vitb14"} & set(list_networks())
