"""Convolutions and linear layers against torch's own weight norms and against dense convolutions."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn import conv, winograd
from imagier.nn.average import fold_spectral_norm
from imagier.nn.conv import (
    Conv2d,
    PaddingMode,
    SpectralConv2d,
    SpectralLinear,
    SpectralNorm,
    WeightNorm,
    choose_algorithms,
    conv2d,
    linear,
)

Layer = SpectralConv2d | SpectralLinear
Hook = Callable[..., nn.Module]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """So that two ways to the same number differ by far less than any mistake."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def hooked(layer: nn.Module, hook: Hook) -> nn.Module:
    """The same layer with torch's own weight norm, the old one that works by a hook."""
    if isinstance(layer, nn.Linear):
        plain: nn.Module = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    else:
        assert isinstance(layer, Conv2d)
        plain = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
        )
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hooks are deprecated; they are the semantics to keep
        return hook(plain)


def spectral_twins(layer: Layer) -> tuple[Layer, nn.Module]:
    twin = hooked(layer, nn.utils.spectral_norm)
    twin.weight_u.copy_(layer.spectral.u)
    twin.weight_v.copy_(layer.spectral.v)
    return layer, twin


def divides_weight(layer: SpectralConv2d, x: Tensor) -> bool:
    """Which of its two branches the layer takes for x."""
    return layer.weight[0].numel() < x[:, 0].numel()


def spectral_conv(*args: int, **options: object) -> SpectralConv2d:
    layer = conv2d(*args, weight_norm="spectral", **options)
    assert isinstance(layer, SpectralConv2d)
    return layer


def spectral_linear(*args: int, bias: bool = True) -> SpectralLinear:
    layer = linear(*args, bias=bias, weight_norm="spectral")
    assert isinstance(layer, SpectralLinear)
    return layer


SPECTRAL = {
    "weight divided": (lambda: spectral_conv(3, 5, 3, stride=2, padding=1), (2, 3, 9, 8)),
    "output divided": (lambda: spectral_conv(16, 5, 3, padding=1), (2, 16, 4, 5)),
    "no bias": (lambda: spectral_conv(4, 7, 1, bias=False), (2, 4, 5, 5)),
    "reflect, output divided": (lambda: spectral_conv(8, 4, 5, padding=2, padding_mode="reflect"), (1, 8, 6, 7)),
    "linear": (lambda: spectral_linear(6, 4), (3, 6)),
    "linear, no bias": (lambda: spectral_linear(4, 6, bias=False), (3, 4)),
}
spectral = pytest.mark.parametrize(("make", "shape"), SPECTRAL.values(), ids=list(SPECTRAL))


@spectral
def test_spectral_layers_do_what_torchs_hook_does_step_by_step(
    make: Callable[[], Layer], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    ours, theirs = spectral_twins(make())
    for _ in range(3):
        x = torch.randn(shape)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [ours(inputs[0]), theirs(inputs[1])]
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(ours.spectral.u, theirs.weight_u)
        torch.testing.assert_close(ours.spectral.v, theirs.weight_v)
        torch.testing.assert_close(ours.spectral.current(ours.weight), (theirs.weight_orig / theirs.weight).mean())
        upstream = torch.randn_like(outputs[0])
        for output in outputs:
            output.backward(upstream)
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
        torch.testing.assert_close(ours.weight.grad, theirs.weight_orig.grad)
        if ours.bias is not None:
            torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
        with torch.no_grad():
            for parameter in (*ours.parameters(), *theirs.parameters()):
                parameter.sub_(0.1 * parameter.grad)
                parameter.grad = None


@spectral
def test_a_forward_in_between_does_not_disturb_the_gradient(make: Callable[[], Layer], shape: tuple[int, ...]) -> None:
    """The discriminator sees real and generated images before either's backward."""
    torch.manual_seed(0)
    layers = spectral_twins(make())
    x, y = torch.randn(2, *shape)
    for layer in layers:
        (layer(x).square().sum() + layer(y).sum()).backward()
    torch.testing.assert_close(layers[0].weight.grad, layers[1].weight_orig.grad)


@spectral
def test_only_training_moves_u_and_v_with_or_without_gradients(
    make: Callable[[], Layer], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    ours, theirs = spectral_twins(make())
    start = ours.spectral.u.clone(), ours.spectral.v.clone()
    x = torch.randn(shape)
    for layer in (ours.eval(), theirs.eval()):
        layer(x)
    torch.testing.assert_close(ours(x), theirs(x))
    assert torch.equal(ours.spectral.u, start[0])
    assert torch.equal(ours.spectral.v, start[1])
    with torch.no_grad():
        torch.testing.assert_close(ours.train()(x), theirs.train()(x))
    assert not torch.allclose(ours.spectral.u, start[0])
    torch.testing.assert_close(ours.spectral.u, theirs.weight_u)
    torch.testing.assert_close(ours.spectral.v, theirs.weight_v)


def test_the_norm_converges_to_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3)
    norm = SpectralNorm(weight)
    for _ in range(300):
        norm(weight)
    torch.testing.assert_close(norm(weight), torch.linalg.matrix_norm(weight.flatten(1), 2))


@pytest.mark.parametrize("bias", [True, False])
def test_dividing_the_output_is_dividing_the_weight(bias: bool) -> None:
    torch.manual_seed(0)
    layer = spectral_conv(12, 5, 3, padding=1, bias=bias).eval()
    few, many = torch.randn(1, 12, 4, 4), torch.randn(8, 12, 4, 4)
    many[0] = few[0]
    assert not divides_weight(layer, few) and divides_weight(layer, many)
    gradients = []
    for x in (few, many):
        output = layer(x)[:1]
        gradients.append(torch.autograd.grad(output.square().sum(), list(layer.parameters())))
    torch.testing.assert_close(layer(many)[:1], layer(few))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("size", [3, 12])
@pytest.mark.parametrize("weight_norm", ["none", "spectral", "weight"])
def test_some_channels_are_the_dense_convolution_of_an_input_that_is_zero_elsewhere(
    weight_norm: WeightNorm, size: int, padding_mode: str
) -> None:
    torch.manual_seed(0)
    layer = conv2d(9, 4, 3, padding=1, padding_mode=padding_mode, weight_norm=weight_norm)
    twin = copy.deepcopy(layer)
    channels = torch.tensor([6, 0, 3])
    some = torch.randn(2, 3, size, size, requires_grad=True)
    dense = torch.zeros(2, 9, size, size).index_copy(1, channels, some.detach()).requires_grad_()
    outputs = [layer(some, channels), twin(dense)]
    torch.testing.assert_close(*outputs)
    upstream = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(upstream)
    torch.testing.assert_close(some.grad, dense.grad[:, channels])
    gradients = [[parameter.grad for parameter in module.parameters()] for module in (layer, twin)]
    torch.testing.assert_close(*gradients)


@spectral
def test_a_folded_layer_is_a_plain_one_with_the_outputs_of_eval_mode(
    make: Callable[[], Layer], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer = make()
    x = torch.randn(shape)
    layer(x)
    folded = layer.eval().fold()
    assert type(folded) is (nn.Linear if isinstance(layer, SpectralLinear) else Conv2d)
    torch.testing.assert_close(folded(x), layer(x))
    assert folded.weight.requires_grad and folded.weight.data_ptr() != layer.weight.data_ptr()


def test_a_folded_convolution_still_takes_some_channels() -> None:
    torch.manual_seed(0)
    layer = spectral_conv(5, 4, 3, padding=1).eval()
    channels = torch.tensor([4, 1])
    x = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(layer.fold()(x, channels), layer(x, channels))


@pytest.mark.parametrize(
    "make", [lambda n: conv2d(3, 5, 3, padding=1, weight_norm=n), lambda n: linear(8, 6, weight_norm=n)]
)
def test_weight_norm_is_torchs(make: Callable[[WeightNorm], nn.Module]) -> None:
    torch.manual_seed(0)
    ours = make("weight")
    theirs = hooked(ours, nn.utils.weight_norm)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    g, v = (getattr(ours.parametrizations.weight, f"original{i}") for i in (0, 1))
    torch.testing.assert_close(g, theirs.weight_g)
    torch.testing.assert_close(v, theirs.weight_v)
    torch.testing.assert_close(g.grad, theirs.weight_g.grad)
    torch.testing.assert_close(v.grad, theirs.weight_v.grad)


@spectral
def test_under_bf16_the_power_iteration_stays_in_float32(make: Callable[[], Layer], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = make().float()
    twin = copy.deepcopy(layer)
    x = torch.randn(shape).float()
    exact = twin(x)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
        inner = layer.spectral.eval()(layer.weight)
    assert output.dtype == torch.bfloat16
    assert inner.dtype == torch.float32
    assert torch.equal(layer.spectral.u, twin.spectral.u)
    assert torch.equal(layer.spectral.v, twin.spectral.v)
    torch.testing.assert_close(output.float(), exact, rtol=0.02, atol=0.02)
    output.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32


def test_a_plain_convolution_is_torchs() -> None:
    torch.manual_seed(0)
    layer = conv2d(3, 4, 3, stride=2, padding=1, padding_mode="replicate")
    x = torch.randn(2, 3, 7, 8)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(layer(x), F.conv2d(padded, layer.weight, layer.bias, stride=2))
    assert conv2d(3, 4, 3, bias=False).bias is None and linear(3, 4, bias=False).bias is None


def test_a_compiled_spectral_layer_that_runs_twice_before_backward_learns_as_a_plain_one() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(conv2d(3, 4, 3, weight_norm="spectral"), nn.ReLU(), conv2d(4, 2, 3, weight_norm="spectral"))
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="aot_eager")
    real, fake = torch.randn(2, 2, 3, 8, 8)
    for network in (plain, compiled):
        (network(real).mean() - network(fake).square().mean()).backward()
    for one, other in zip(plain.parameters(), compiled.parameters()):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad)
    for one, other in zip(plain.buffers(), compiled.buffers()):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weight_norm", ["none", "spectral"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_of_single_pixels_with_a_stride_is_that_of_torch(
    weight_norm: WeightNorm, memory_format: torch.memory_format
) -> None:
    layer = conv2d(4, 6, 1, stride=2, weight_norm=weight_norm).eval()
    layer.to(memory_format=memory_format)  # type: ignore[call-overload]
    x = torch.rand(2, 4, 9, 8, requires_grad=True)
    norm = layer.spectral.current(layer.weight) if isinstance(layer, SpectralConv2d) else 1
    expected = F.conv2d(x, layer.weight.contiguous() / norm, layer.bias, stride=2)
    found = layer(x.contiguous(memory_format=memory_format))
    torch.testing.assert_close(found, expected)
    (of_found,), (of_expected,) = (
        torch.autograd.grad(y.square().sum(), x, retain_graph=True) for y in (found, expected)
    )
    torch.testing.assert_close(of_found, of_expected)


def test_a_spectral_norm_is_the_same_in_channels_last() -> None:
    layer = conv2d(4, 6, 3, weight_norm="spectral")
    turned = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    assert not turned.weight.is_contiguous()
    x = torch.randn(2, 4, 5, 5)
    for _ in range(2):
        expected, found = layer(x), turned(x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(turned.state_dict(), layer.state_dict())
        of_both = [torch.autograd.grad(y.square().sum(), one.weight) for y, one in ((expected, layer), (found, turned))]
        torch.testing.assert_close(*of_both)
    torch.testing.assert_close(turned.eval()(x), layer.eval()(x))


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("weight_norm", ["none", "spectral", "weight"])
@pytest.mark.parametrize(("size", "upsample"), [(3, False), (5, False), (3, True), (5, True)])
def test_other_algorithms_give_what_the_direct_one_gives(
    size: int, upsample: bool, weight_norm: WeightNorm, mode: PaddingMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "should_use_winograd", lambda x, weight, padding: True)
    monkeypatch.setattr(conv, "should_use_subpixel", lambda x, weight, padding_mode: True)
    options = {"padding": size // 2, "padding_mode": mode, "weight_norm": weight_norm, "upsample": upsample}
    layer = conv2d(4, 6, size, **options).eval()
    x = torch.randn(2, 4, 9, 12)
    expected = layer(x)
    assert expected.shape == (2, 6, 9 * (1 + upsample), 12 * (1 + upsample))
    choose_algorithms(nn.Sequential(layer), has_winograd=True, has_subpixel=True)
    torch.testing.assert_close(layer(x), expected, atol=1e-11, rtol=0)
    some = torch.tensor([0, 3])
    if weight_norm != "weight":
        others = torch.zeros_like(x).index_copy(1, some, x[:, some])
        torch.testing.assert_close(layer(x[:, some], some), layer(others), atol=1e-11, rtol=0)


def test_an_average_takes_the_algorithms_of_its_source() -> None:
    source = nn.Sequential(conv2d(2, 2, 3, padding=1, weight_norm="spectral", upsample=True))
    choose_algorithms(source, has_winograd=True, has_subpixel=False)
    (folded,) = fold_spectral_norm(source)
    assert (folded.upsample, folded.has_winograd, folded.has_subpixel) == (True, True, False)


@pytest.mark.slow
def test_layers_with_other_algorithms_compile_as_one_graph() -> None:
    torch.set_default_dtype(torch.float32)
    layers = nn.Sequential(conv2d(64, 128, 3, padding=1), conv2d(128, 64, 5, padding=2, upsample=True))
    choose_algorithms(layers, has_winograd=True, has_subpixel=True)
    x = torch.randn(1, 64, 64, 64)
    compiled = torch.compile(layers, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layers(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_images_smaller_than_the_stride_have_right_gradients_in_half_precision(kernel_size: int, side: int) -> None:
    # What memory holds shows where torch does not set the gradient: huge numbers.
    garbage = [torch.full((count,), 3e38).float() for count in (16, 64, 256, 1024, 4096, 16384) for _ in range(20)]
    layer = conv2d(8, 16, kernel_size, stride=side + 1, padding=kernel_size // 2).float()
    x = torch.randn(2, 8, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    del garbage
    (found,) = torch.autograd.grad(y.sum(), layer.weight)
    exact = layer.double()
    (expected,) = torch.autograd.grad(exact(x.double()).sum(), exact.weight)
    torch.testing.assert_close(found, expected.float(), rtol=0.02, atol=0.02)
