"""The gradient penalty against torch's other way to differentiate, and against a discriminator whose slope is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imagier.losses.gradient_penalty import gradient_penalty
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.residual_discriminator import ResidualDiscriminator

COMMON = {"num_filters": 3, "max_num_filters": 6, "num_layers": 2}
PATCH = {**COMMON, "num_discriminators": 2, "kernel_size": 3}


def discriminator(kind: str, norm: str, weight_norm: str) -> nn.Module:
    torch.manual_seed(0)
    norms = {"activation_norm_type": norm, "weight_norm_type": weight_norm}
    if kind == "residual":
        made: nn.Module = ResidualDiscriminator(3, **COMMON, **norms, padding_mode="reflect")
    else:
        made = MultiScalePatchDiscriminator(3, **PATCH, **norms, shared=kind == "shared")
    return made.double()


def make_images() -> Tensor:
    return torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def half_mean_squared_slope(network: nn.Module, images: Tensor) -> Tensor:
    """By torch.autograd.grad."""
    images = images.clone().requires_grad_()
    scores = network(images)[0]
    per_image = sum(x.flatten(1).mean(dim=1) for x in scores) / len(scores)
    (gradient,) = torch.autograd.grad(per_image.sum(), images, create_graph=True)
    return gradient.square().sum() / (2 * len(images))


@pytest.mark.parametrize("kind", ["residual", "patch", "shared"])
@pytest.mark.parametrize(
    ("norm", "weight_norm"), [("none", "none"), ("none", "spectral"), ("instance", "weight"), ("batch", "none")]
)
@pytest.mark.parametrize("training", [True, False])
def test_value_and_gradients_are_those_of_autograd(kind: str, norm: str, weight_norm: str, training: bool) -> None:
    network, twin = discriminator(kind, norm, weight_norm), discriminator(kind, norm, weight_norm)
    network.train(training)
    twin.train(training)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    penalty = gradient_penalty(network, make_images())
    expected = half_mean_squared_slope(twin, make_images())
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    expected.backward()
    for (name, ours), theirs in zip(network.named_parameters(), twin.parameters()):
        zero = torch.zeros_like(ours)
        found, wanted = (zero if p.grad is None else p.grad for p in (ours, theirs))
        torch.testing.assert_close(found, wanted, msg=name)
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), f"{name} has changed"


def test_of_a_linear_discriminator_it_is_half_the_squared_length_of_its_weight() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3 * 16 * 16, 1)

        def forward(self, x: Tensor) -> tuple[list[Tensor], None]:
            return [self.fc(x.flatten(1)), 3 * self.fc(x.flatten(1))], None

    network = Linear().double()
    torch.testing.assert_close(gradient_penalty(network, make_images()), 2 * network.fc.weight.square().sum())


def test_it_is_computed_in_full_precision_under_autocast() -> None:
    network = discriminator("residual", "none", "spectral").float()
    images = make_images().float()
    full = gradient_penalty(network, images)
    with torch.autocast("cpu", torch.bfloat16):
        half = gradient_penalty(network, images)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=1e-6, atol=0)  # the penalty is about 1e-3
