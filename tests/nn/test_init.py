"""First values of weights, against recorded figures and against the definitions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from golden import golden
from torch import Tensor, nn

from imagier.nn.conv import SpectralConv2d, conv2d, linear
from imagier.nn.init import Init, Pretrained, initialize
from imagier.nn.norm import LayerNorm2d

GAIN = 0.02
BIAS_GAIN = 0.3
KINDS: tuple[Init, ...] = ("xavier", "xavier_uniform", "normal", "kaiming", "kaiming_linear", "orthogonal", "none")


def layers() -> nn.ModuleDict:
    """The layers of the recorded figures."""
    return nn.ModuleDict(
        {
            "conv": conv2d(64, 128, 3),
            "conv_1x1": conv2d(256, 96, 1),
            "conv_transpose": nn.ConvTranspose2d(64, 48, 4),
            "conv1d": nn.Conv1d(96, 128, 5),
            "conv_spectral": conv2d(64, 96, 3, weight_norm="spectral"),
            "linear": linear(384, 200),
            "embedding": nn.Embedding(300, 64),
            "batchnorm": nn.BatchNorm2d(64),
            "instancenorm": nn.InstanceNorm2d(64, affine=True),
            "prelu": nn.PReLU(8),
        }
    )


def is_uniform(kind: str) -> bool:
    return kind == "xavier_uniform"


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_weights_have_the_recorded_deviation_and_distribution(kind: Init, with_bias: bool) -> None:
    recorded = json.loads(golden("optim", "weight_init.json").read_text())
    assert recorded["gain"] == GAIN
    figures = recorded["stats"][f"{kind}+bias(normal,gain {BIAS_GAIN})" if with_bias else kind]
    torch.manual_seed(0)
    network = layers()
    initialize(network, kind, GAIN, BIAS_GAIN if with_bias else None)
    assert figures.keys() == dict(network.named_children()).keys()
    for name, layer in network.named_children():
        weight, expected = layer.weight, figures[name]
        assert list(weight.shape) == expected["shape"]
        if expected["std"] == 0:
            assert torch.equal(weight, torch.full_like(weight, expected["mean"])), name
            continue
        assert weight.std().item() == pytest.approx(expected["std"], rel=0.03), name
        assert abs(weight.mean().item()) < 4 * expected["std"] / math.sqrt(weight.numel()), name
        largest = weight.abs().max().item()
        if is_uniform(kind):
            assert largest == pytest.approx(expected["max_abs"], rel=0.03), name
        else:
            assert largest > 3 * expected["std"], name


@pytest.mark.parametrize("with_bias", [False, True])
def test_biases_are_zero_or_normal_also_those_of_norms(with_bias: bool) -> None:
    torch.manual_seed(0)
    network = layers()
    initialize(network, "xavier", GAIN, BIAS_GAIN if with_bias else None)
    biases = {name: parameter for name, parameter in network.named_parameters() if name.endswith("bias")}
    assert len(biases) == 8
    if not with_bias:
        assert all(torch.equal(bias, torch.zeros_like(bias)) for bias in biases.values())
        return
    drawn = torch.cat(list(biases.values()))
    assert drawn.std().item() == pytest.approx(BIAS_GAIN, rel=0.08)
    assert all(bias.std().item() > 0.7 * BIAS_GAIN for bias in biases.values())


@pytest.mark.parametrize("bias_gain", [None, BIAS_GAIN])
def test_none_leaves_everything_as_it_was(bias_gain: float | None) -> None:
    network = layers()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    initialize(network, "none", GAIN, bias_gain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_the_deviation_is_that_of_the_definition(kind: Init) -> None:
    torch.manual_seed(0)
    layer = conv2d(64, 128, 3)
    initialize(layer, kind, GAIN)
    fan_in, fan_out = 64 * 9, 128 * 9
    expected = {
        "normal": 1.0,
        "xavier": math.sqrt(2 / (fan_in + fan_out)),
        "xavier_uniform": math.sqrt(2 / (fan_in + fan_out)),
        "kaiming": math.sqrt(2 / fan_in),
        "kaiming_linear": math.sqrt(1 / fan_in),
        "orthogonal": math.sqrt(1 / fan_in),  # 128 orthonormal rows of that length
    }[kind]
    assert layer.weight.std().item() == pytest.approx(GAIN * expected, rel=0.02)


def test_orthogonal_rows_are_orthonormal_times_the_gain() -> None:
    layer = conv2d(8, 16, 3)
    initialize(layer, "orthogonal", 0.5)
    rows = layer.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(16))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_can_lie_in_memory_as_channels_last(kind: Init) -> None:
    layer = conv2d(8, 16, 3).to(memory_format=torch.channels_last)
    initialize(layer, kind, 0.5)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    if kind == "orthogonal":
        rows = layer.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(16))


def test_spectral_layers_get_weights_but_keep_their_singular_vectors() -> None:
    layer = conv2d(4, 8, 3, weight_norm="spectral")
    assert isinstance(layer, SpectralConv2d)
    u, v, weight = (tensor.detach().clone() for tensor in (layer.spectral.u, layer.spectral.v, layer.weight))
    initialize(layer, "normal", 1.0)
    assert torch.equal(layer.spectral.u, u)
    assert torch.equal(layer.spectral.v, v)
    assert not torch.equal(layer.weight, weight)


@pytest.mark.parametrize("kind", ["normal", "xavier", "orthogonal"])
def test_layers_with_weight_norm_get_the_weight_that_plain_ones_get(kind: Init) -> None:
    def drawn(weight_norm: str) -> Tensor:
        layer = conv2d(4, 8, 3, weight_norm=weight_norm)
        torch.manual_seed(1)
        initialize(layer, kind, 0.7)
        return layer(torch.eye(4).view(4, 4, 1, 1).expand(-1, -1, 3, 3).contiguous())

    torch.testing.assert_close(drawn("weight"), drawn("none"))


def test_weights_are_drawn_in_place_and_still_learn() -> None:
    for weight_norm in ("none", "spectral", "weight"):
        layer = conv2d(4, 8, 3, weight_norm=weight_norm)
        parameters = list(layer.parameters())
        initialize(layer, "xavier", GAIN)
        assert all(a is b and a.requires_grad and a.is_leaf for a, b in zip(parameters, layer.parameters()))


def test_scale_and_shift_of_layer_2d_keep_their_defaults() -> None:
    norm = LayerNorm2d(4)
    initialize(norm, "normal", 1.0, BIAS_GAIN)
    assert torch.equal(norm.gamma, torch.ones(4))
    assert torch.equal(norm.beta, torch.zeros(4))


@pytest.mark.parametrize("kind", ["normal", "xavier", "xavier_uniform", "kaiming", "kaiming_linear", "orthogonal"])
def test_the_mean_of_the_weights_is_zero(kind: Init) -> None:
    layer = nn.Conv2d(64, 64, 3)
    initialize(layer, kind, 1.0)
    assert abs(layer.weight.mean().item()) < 5 * layer.weight.std().item() / layer.weight.numel() ** 0.5


class Loaded(Pretrained):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_what_is_frozen_or_pretrained_keeps_its_values(kind: Init) -> None:
    frozen = conv2d(2, 2, 3, weight_norm="weight").requires_grad_(False)
    network = nn.Sequential(nn.Linear(3, 3), frozen, Pretrained(nn.Linear(3, 3)), nn.Sequential(Loaded()))
    before = [parameter.clone() for parameter in network.parameters()]
    initialize(network, kind, GAIN, BIAS_GAIN)
    changed = [not torch.equal(a, b) for a, b in zip(network.parameters(), before)]
    assert changed == [True, True, *[False] * (len(before) - 2)]


HOOKS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "spectral hook": nn.utils.spectral_norm,
    "weight hook": nn.utils.weight_norm,
    "weight hook, one magnitude": partial(nn.utils.weight_norm, dim=None),
    "spectral": nn.utils.parametrizations.spectral_norm,
    "weight": nn.utils.parametrizations.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", HOOKS)
def test_weights_under_the_norms_of_torch_are_drawn_unless_they_are_frozen(name: str) -> None:
    """What the layer computes afterwards is what a plain one does; over its largest singular value if spectral."""
    plain = nn.Conv2d(4, 5, 3)
    torch.manual_seed(1)
    initialize(plain, "normal", GAIN)
    weight = plain.weight.detach()
    layer, frozen = HOOKS[name](nn.Conv2d(4, 5, 3)), HOOKS[name](nn.Conv2d(4, 5, 3)).requires_grad_(False)
    torch.manual_seed(1)
    initialize(layer, "normal", GAIN)
    x = torch.rand(2, 4, 6, 6)
    for _ in range(100):  # power iterations
        y = layer(x)
    if "spectral" in name:
        weight = weight / torch.linalg.matrix_norm(weight.flatten(1), ord=2)
    torch.testing.assert_close(y, F.conv2d(x, weight))
    before = [parameter.clone() for parameter in frozen.parameters()]
    initialize(frozen, "normal", GAIN)
    assert all(map(torch.equal, frozen.parameters(), before))


def test_a_pretrained_part_is_called_like_what_it_holds() -> None:
    inner = nn.Bilinear(2, 3, 4)
    x, y = torch.rand(5, 2), torch.rand(5, 3)
    assert torch.equal(Pretrained(inner)(x, input2=y), inner(x, y))
