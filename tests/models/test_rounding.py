"""Two orders of computation: in float64 one result, in float32 equally far from it.

SPADE and MUNIT (spectral norms, norms with a style) once as the product computes them, once in the reference's order,
from weights as the reference's configs initialize them (Xavier, gain 0.02).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from second_way import NORMS, Weights, adaptive, content, conv, decoded, leaky, mlp, style, weights_of
from torch import Tensor, nn

from imagier.models import munit, spade
from imagier.models.spade import SpadeNormParams, StyleEncoderParams
from imagier.nn.init import initialize

CLASSES, SIZE, STYLE = 20, 64, 4  # from 16 classes on, channels that are 0 everywhere are left out


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images(count: int = 1) -> Tensor:
    return F.interpolate(torch.rand(count, 3, 16, 16) * 2 - 1, size=(SIZE, SIZE), mode="bicubic")


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    weight = w[f"{name}.weight_orig"]
    norm = w[f"{name}.weight_u"] @ weight @ w[f"{name}.weight_v"]
    return x @ (weight / norm).T + w[f"{name}.bias"]


def batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    shape = (-1, 1, 1)
    x = (x - w[f"{name}.running_mean"].view(shape)) / (w[f"{name}.running_var"].view(shape) + 1e-5).sqrt()
    return x * w[f"{name}.weight"].view(shape) + w[f"{name}.bias"].view(shape)


def spade_in_order_of_the_reference(w: Weights, label: Tensor, target: Tensor, noise: Tensor) -> Tensor:
    """SPADE of 256 px with a style: whole label maps, and every weight divided by its norm before it is used."""

    def modulated(name: str, x: Tensor) -> Tensor:
        hidden = F.interpolate(label, size=x.shape[2:], mode="nearest")
        hidden = F.relu(conv(w, f"{name}.mlps.0.0.layers.conv", hidden, padding=1))
        gamma, beta = conv(w, f"{name}.mlps.0.1.layers.conv", hidden, padding=1).chunk(2, dim=1)
        return batch_norm(w, f"{name}.norm", x) * (1 + gamma) + beta

    def block(name: str, x: Tensor) -> Tensor:
        dx = x
        for part in ("conv_block_0", "conv_block_1"):
            here = f"{prefix}{name}.{part}.layers"
            dx = conv(w, f"{here}.conv", leaky(modulated(f"{here}.norm", dx)), padding=1)
        here = f"{prefix}{name}.conv_block_s.layers"
        if f"{here}.conv.weight_orig" in w:
            x = conv(w, f"{here}.conv", modulated(f"{here}.norm", x))
        return x + dx

    def styled(name: str, x: Tensor) -> Tensor:
        here = f"{prefix}{name}.layers"
        gamma, beta = linear(w, f"{here}.norm.fc.layers.conv", code)[..., None, None].chunk(2, dim=1)
        return conv(w, f"{here}.conv", leaky(batch_norm(w, f"{here}.norm.norm", x) * (1 + gamma) + beta), padding=1)

    prefix = "spade_generator."
    x = F.interpolate(target, size=(256, 256), mode="bilinear")
    for index in range(1, 7):
        x = leaky(conv(w, f"style_encoder.layer{index}.layers.conv", x, stride=2, padding=1))
    flat = x.flatten(1)
    mu, logvar = (
        flat @ w[f"style_encoder.{name}.layers.conv.weight"].T + w[f"style_encoder.{name}.layers.conv.bias"]
        for name in ("fc_mu", "fc_var")
    )
    code = mu + noise * torch.exp(logvar / 2)
    for name in ("fc_0", "fc_1"):
        code = F.relu(linear(w, f"{prefix}{name}.layers.conv", code))
    side = SIZE // 16
    line = torch.linspace(-1, 1, 16).to(label.dtype)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"))[None]
    grid = F.interpolate(grid, size=(side, side), mode="bicubic").expand(len(label), -1, -1, -1)
    coarse = F.interpolate(label, size=(side, side), mode="nearest")
    x = leaky(conv(w, f"{prefix}head_0.layers.conv", torch.cat([coarse, grid], dim=1), padding=1))
    x = block("head_2", block("head_1", styled("cbn_head_0", x)))
    for level in range(3):
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = block(f"up_{level}b", styled(f"cbn_up_{level}a", block(f"up_{level}a", x)))
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    return torch.tanh(conv(w, f"{prefix}conv_img256.layers.conv", leaky(x), padding=2))


def spade_pair() -> tuple[nn.Module, Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]:
    network = spade.Generator(
        label_channels=CLASSES,
        image_channels=3,
        crop_h_w=(256, 256),
        num_filters=2,
        style_dims=STYLE,
        activation_norm_params=SpadeNormParams(num_filters=8),
        style_enc=StyleEncoderParams(num_filters=2),
    )
    coarse = torch.randint(6, (1, SIZE // 8, SIZE // 8))
    label = F.one_hot(coarse, CLASSES).movedim(-1, 1).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)

    def ours(network: nn.Module, label: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        present = label.amax(dim=(0, 2, 3)).nonzero()[:, 0]
        return network(label[:, present], present, images=target, noise=noise)["fake_images"]

    return network, ours, spade_in_order_of_the_reference, [label.float(), images(), torch.randn(1, STYLE)]


def munit_pair() -> tuple[nn.Module, Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]:
    network = munit.Generator(num_filters=4, num_filters_mlp=8, num_res_blocks=2, weight_norm_type="spectral")

    def ours(network: munit.Generator, a: Tensor, b: Tensor) -> Tensor:
        code, _ = network.autoencoder_a.encode(a)
        return network.autoencoder_b.decode(code, network.autoencoder_b.encode(b)[1])

    def theirs(w: Weights, a: Tensor, b: Tensor) -> Tensor:
        instance = NORMS["instance"]
        code = content(w, "autoencoder_a.content_encoder", a, halvings=2, blocks=2, order="CNACNA", norm=instance)
        look = style(w, "autoencoder_b.style_encoder", b, halvings=4, norm=NORMS["none"])
        norm = adaptive(mlp(w, "autoencoder_b.mlp", look), instance)
        options = {"doublings": 2, "blocks": 2, "order": "CNACNA", "norm": norm, "output": None}
        return decoded(w, "autoencoder_b.decoder", code, **options)

    return network, ours, theirs, [images(), images()]


@pytest.mark.parametrize("make", [spade_pair, munit_pair], ids=["spade", "munit"])
@pytest.mark.parametrize("iterations", [1, 4])  # of the power iteration, from random vectors
def test_both_orders_are_one_function_and_float32_rounds_them_alike(make: Callable, iterations: int) -> None:
    network, ours, theirs, inputs = make()
    initialize(network, "xavier", 0.02, None)
    network.train()
    with torch.no_grad():
        for _ in range(iterations):
            ours(network, *inputs)
        network.eval()
        exact = copy.deepcopy(network).double()
        wide = [x.double() for x in inputs]
        truth = ours(exact, *wide)
        second = theirs(weights_of(exact, exact.reference_rules()), *wide)
        errors = [
            (found.double() - truth).abs().mean().item()
            for found in (ours(network, *inputs), theirs(weights_of(network, network.reference_rules()), *inputs))
        ]
    assert min(errors) > 0
    assert truth.abs().mean() > 1e-4
    torch.testing.assert_close(second, truth, rtol=1e-9, atol=1e-10)
    assert max(errors) < 4 * min(errors)
