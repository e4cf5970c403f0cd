"""Norms against torch's functions and against their formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.norm import (
    AdaptiveNorm,
    MultiSpatiallyAdaptiveNorm,
    Norm,
    NormParams,
    PartialMap,
    SpatiallyAdaptiveNorm,
    SyncBatchNorm2d,
    norm2d,
)

CHANNELS = 8


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """So that two ways to the same number differ by far less than any mistake."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def image(height: int = 5, width: int = 6) -> Tensor:
    """Each channel with a mean and a deviation of its own, so that no two norms agree by chance."""
    spread = torch.linspace(0.5, 3, CHANNELS)[:, None, None]
    return torch.randn(3, CHANNELS, height, width) * spread + 2 * spread - 1


def randomized(module: nn.Module) -> nn.Module:
    """The module with parameters that are not at their defaults."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def per_channel(values: Tensor | None, default: float) -> Tensor:
    return torch.full((1, 1, 1), default) if values is None else values[:, None, None]


def layer_2d(x: Tensor, norm: nn.Module, dims: tuple[int, ...]) -> Tensor:
    """Written out: the deviation is the unbiased one, and eps is added to it, not to the variance."""
    count = x[0].numel() if len(dims) == 3 else x.shape[1]
    centered = x - x.mean(dims, keepdim=True)
    deviation = (centered.square().sum(dims, keepdim=True) / (count - 1)).sqrt()
    gamma, beta = norm.gamma, norm.beta
    return centered / (deviation + norm.eps) * per_channel(gamma, 1) + per_channel(beta, 0)


FORMULAS: dict[str, Callable[[Tensor, nn.Module], Tensor]] = {
    "none": lambda x, n: x,
    "instance": lambda x, n: F.instance_norm(x, weight=n.weight, bias=n.bias, eps=n.eps),
    "batch": lambda x, n: F.batch_norm(x, None, None, n.weight, n.bias, training=True, eps=n.eps),
    "sync_batch": lambda x, n: F.batch_norm(x, None, None, n.weight, n.bias, training=True, eps=n.eps),
    "layer_2d": lambda x, n: layer_2d(x, n, (1, 2, 3)),
    "group": lambda x, n: F.group_norm(x, n.num_groups, n.weight, n.bias, n.eps),
    "pixel_layer": lambda x, n: torch.stack(
        [F.layer_norm(pixel, (CHANNELS,), n.norm.weight, n.norm.bias, n.norm.eps) for pixel in x.flatten(2).unbind(2)],
        dim=2,
    ).view(x.shape),
    "pixel": lambda x, n: x / (x.square().sum(1, keepdim=True) / CHANNELS + 1e-5).sqrt(),
}


@pytest.mark.parametrize("params", [NormParams(), NormParams(affine=False), NormParams(eps=0.1)], ids=str)
@pytest.mark.parametrize("kind", FORMULAS)
def test_plain_norms_follow_their_formulas(kind: Norm, params: NormParams) -> None:
    norm = randomized(norm2d(kind, CHANNELS, params))
    x = image()
    torch.testing.assert_close(norm(x), FORMULAS[kind](x, norm))
    has_parameters = params.affine and kind not in ("none", "pixel")
    assert len(list(norm.parameters())) == 2 * has_parameters
    if kind not in ("none", "pixel"):
        assert (norm.norm if kind == "pixel_layer" else norm).eps == params.eps


def test_layer_2d_over_the_channels_of_one_pixel() -> None:
    norm = randomized(norm2d("layer_2d", CHANNELS, NormParams(channel_only=True)))
    x = image()
    torch.testing.assert_close(norm(x), layer_2d(x, norm, (1,)))


def test_group_norm_takes_the_number_of_groups() -> None:
    x = image()
    found = norm2d("group", CHANNELS, NormParams(num_groups=2))(x)
    torch.testing.assert_close(found, F.group_norm(x, 2))
    assert not torch.allclose(found, norm2d("group", CHANNELS)(x))


@pytest.mark.parametrize("groups", [3, 16, 0])
def test_groups_that_do_not_divide_the_channels_are_told(groups: int) -> None:
    with pytest.raises(UserError, match=f"8 channels cannot be split into {groups} groups"):
        norm2d("group", CHANNELS, NormParams(num_groups=groups))


@pytest.mark.parametrize("kind", ["batch", "sync_batch"])
def test_running_statistics_move_by_the_momentum_towards_mean_and_unbiased_variance(kind: Norm) -> None:
    norm = norm2d(kind, CHANNELS, NormParams(momentum=0.3))
    mean, var = torch.zeros(CHANNELS), torch.ones(CHANNELS)
    for _ in range(2):
        x = image()
        norm(x)
        rows = x.movedim(1, 0).flatten(1)
        mean, var = 0.7 * mean + 0.3 * rows.mean(1), 0.7 * var + 0.3 * rows.var(1)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    x = image()
    expected = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(norm.eval()(x), expected)


def test_sync_batch_norm_without_ranks_is_batch_norm() -> None:
    sync, plain = SyncBatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)
    randomized(sync)
    plain.load_state_dict(sync.state_dict())
    for training in (True, True, False):
        inputs = [image().requires_grad_()]
        inputs.append(inputs[0].detach().clone().requires_grad_())
        outputs = [norm.train(training)(x) for norm, x in zip((sync, plain), inputs)]
        for output in outputs:
            output.square().sum().backward()
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
        torch.testing.assert_close(sync.state_dict(), plain.state_dict())
    torch.testing.assert_close(sync.weight.grad, plain.weight.grad)


def code_projection(norm: AdaptiveNorm, code: Tensor) -> tuple[Tensor, Tensor]:
    if norm.separate_projection:
        layers = (norm.fc_gamma, norm.fc_beta)
        gamma, beta = (code @ layer.weight.T + layer.bias for layer in layers)
        return gamma, beta
    both = code @ norm.fc.weight.T + norm.fc.bias
    return both[:, :CHANNELS], both[:, CHANNELS:]


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("inner", ["instance", "batch", "none"])
def test_adaptive_norm_scales_by_one_plus_gamma_and_shifts_by_beta_of_the_code(inner: Norm, separate: bool) -> None:
    plain = norm2d(inner, CHANNELS, NormParams(affine=False))
    norm = AdaptiveNorm(CHANNELS, 4, norm=plain, separate_projection=separate)
    randomized(norm)
    x, code = image(), torch.randn(3, 4)
    gamma, beta = code_projection(norm, code)
    expected = FORMULAS[inner](x, plain) * (1 + gamma[..., None, None]) + beta[..., None, None]
    torch.testing.assert_close(norm(x, code), expected)


def test_adaptive_norm_is_its_plain_norm_when_the_projection_is_zero() -> None:
    norm = AdaptiveNorm(CHANNELS, 4, norm=norm2d("instance", CHANNELS))
    nn.init.zeros_(norm.fc.weight)
    nn.init.zeros_(norm.fc.bias)
    x = image()
    torch.testing.assert_close(norm(x, torch.randn(3, 4)), F.instance_norm(x))


def test_spade_norm_is_instance_norm_when_the_label_says_nothing() -> None:
    norm = SpatiallyAdaptiveNorm(CHANNELS, 4, norm=norm2d("instance", CHANNELS))
    for name, parameter in norm.mlp.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    x = image()
    torch.testing.assert_close(norm(x, PartialMap(torch.zeros(3, 4, 5, 6), None)), F.instance_norm(x))


def convolved(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def spade_formula(norm: SpatiallyAdaptiveNorm, x: Tensor, label: Tensor) -> Tensor:
    hidden, layers = label, list(norm.mlp)
    if len(layers) >= 2:
        hidden = convolved(layers[0], hidden).clamp(min=0)
    if norm.separate_projection:
        gamma, beta = convolved(norm.gamma, hidden), convolved(norm.beta, hidden)
    else:
        both = convolved(layers[-1], hidden)
        gamma, beta = both[:, :CHANNELS], both[:, CHANNELS:]
    scale = 1.0 if norm.bias_only else 1 + gamma
    return FORMULAS["instance"](x, norm.norm) * scale + beta


@pytest.mark.parametrize("bias_only", [False, True])
@pytest.mark.parametrize("num_filters", [0, 5])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_spade_norm_follows_its_formula(kernel_size: int, separate: bool, num_filters: int, bias_only: bool) -> None:
    norm = SpatiallyAdaptiveNorm(
        CHANNELS,
        4,
        norm=norm2d("instance", CHANNELS),
        num_filters=num_filters,
        kernel_size=kernel_size,
        separate_projection=separate,
        bias_only=bias_only,
    )
    randomized(norm)
    x, label = image(), torch.randn(3, 4, 5, 6)
    torch.testing.assert_close(norm(x, PartialMap(label, None)), spade_formula(norm, x, label))
    widths = [layer.out_channels for layer in norm.modules() if isinstance(layer, nn.Conv2d)]
    expected = [num_filters] * bool(num_filters) + ([CHANNELS, CHANNELS] if separate else [2 * CHANNELS])
    assert sorted(widths) == expected


@pytest.mark.parametrize("weight_norm", ["none", "spectral", "weight"])
@pytest.mark.parametrize("num_filters", [0, 5])
@pytest.mark.parametrize("separate", [False, True])
def test_spade_norm_of_some_channels_is_that_of_the_map_that_is_zero_elsewhere(
    separate: bool, num_filters: int, weight_norm: str
) -> None:
    norm = SpatiallyAdaptiveNorm(
        CHANNELS,
        7,
        norm=norm2d("instance", CHANNELS),
        num_filters=num_filters,
        separate_projection=separate,
        weight_norm=weight_norm,
    ).eval()
    channels = torch.tensor([5, 2, 3])
    some = torch.randn(3, 3, 5, 6)
    dense = torch.zeros(3, 7, 5, 6).index_copy(1, channels, some)
    x = image()
    torch.testing.assert_close(norm(x, PartialMap(some, channels)), norm(x, PartialMap(dense, None)))


@pytest.mark.parametrize("kind", FORMULAS)
def test_norms_keep_half_precision_under_autocast(kind: Norm) -> None:
    norm = norm2d(kind, CHANNELS).float()
    label = PartialMap(torch.randn(3, 4, 5, 6).float(), None)
    code = torch.randn(3, 4).float()
    x = image().bfloat16()
    spade = SpatiallyAdaptiveNorm(CHANNELS, 4, norm=norm, num_filters=6).float()
    adaptive = AdaptiveNorm(CHANNELS, 4, norm=norm).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert spade(x, label).dtype == adaptive(x, code).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", FORMULAS)
def test_statistics_of_half_precision_are_taken_in_float32(kind: Norm) -> None:
    """A mean of 50 deviations: rounded to half precision, its error alone would be a tenth of a deviation."""
    norm = norm2d(kind, CHANNELS).float()
    x = (50 + torch.randn(3, CHANNELS, 5, 6)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x)
    torch.testing.assert_close(found.float(), norm(x.float()), rtol=0.01, atol=0.01)


def test_pixel_norm_of_large_half_precision_is_that_in_float32() -> None:
    """The square of 300 is beyond the largest number of float16."""
    x = (300 * torch.randn(2, CHANNELS, 3, 3)).half()
    found = norm2d("pixel", CHANNELS)(x)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), norm2d("pixel", CHANNELS)(x.float()), rtol=1e-3, atol=1e-3)


def test_the_defaults_are_those_of_torch() -> None:
    ours, torchs = norm2d("batch", 3), nn.BatchNorm2d(3)
    assert isinstance(ours, nn.BatchNorm2d)
    assert (ours.momentum, ours.eps, ours.affine) == (torchs.momentum, torchs.eps, torchs.affine)
    assert list(map(str, norm2d("pixel_layer", 3).state_dict())) == ["norm.weight", "norm.bias"]


def test_sync_batch_norm_of_two_ranks_is_batch_norm_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ranks hold the same, so that a sum over ranks is twice what one has."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda x, *args, **kwargs: x.mul_(2))
    x = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 3 + 7
    ours, plain = norm2d("sync_batch", 4), nn.BatchNorm2d(4)
    torch.testing.assert_close(ours(x), plain(torch.cat([x, x]))[:3])
    assert isinstance(ours, nn.BatchNorm2d) and ours.running_mean is not None and ours.running_var is not None
    torch.testing.assert_close(ours.running_mean, plain.running_mean)
    torch.testing.assert_close(ours.running_var, plain.running_var)


def test_several_maps_modulate_one_after_the_other_each_at_the_size_of_the_image() -> None:
    norm = MultiSpatiallyAdaptiveNorm(CHANNELS, [2, 3], norm=nn.InstanceNorm2d(CHANNELS), num_filters=0, kernel_size=1)
    randomized(norm)
    x, large, small = image(4, 6), torch.randn(3, 2, 8, 12), torch.randn(3, 3, 2, 3)

    def modulate(y: Tensor, number: int, at_size: Tensor) -> Tensor:
        conv = norm.of_map[number].mlp[0]
        gamma, beta = F.conv2d(at_size, conv.weight, conv.bias).chunk(2, dim=1)
        return y * (1 + gamma) + beta

    first = modulate(F.instance_norm(x), 0, large[..., ::2, ::2])
    both = modulate(first, 1, small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert torch.allclose(norm(x, large, small), both)
    assert torch.allclose(norm(x, large), first)
    assert torch.allclose(norm(x, large, None), first)
