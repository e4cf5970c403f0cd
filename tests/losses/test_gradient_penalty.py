"""The gradient penalty against torch's other way to differentiate, and against a discriminator whose slope is known."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from imagier.losses.gradient_penalty import gradient_penalty
from imagier.models import funit, pix2pixHD
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.residual_discriminator import ResidualDiscriminator
from imagier.recipe import Batch, Losses, Recipe, StepContext
from imagier.train import schedule
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

COMMON = {"num_filters": 3, "max_num_filters": 6, "num_layers": 2}
PATCH = {**COMMON, "num_discriminators": 2, "kernel_size": 3}


def discriminator(kind: str, norm: str, weight_norm: str) -> nn.Module:
    torch.manual_seed(0)
    norms = {"activation_norm_type": norm, "weight_norm_type": weight_norm}
    if kind == "residual":
        made: nn.Module = ResidualDiscriminator(3, **COMMON, **norms, padding_mode="reflect")
    else:
        made = MultiScalePatchDiscriminator(3, **PATCH, **norms, is_shared=kind == "shared")
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


HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("under_autocast", [False, True])
@pytest.mark.parametrize("weights", [torch.float32, *HALVES])
@pytest.mark.parametrize("images", [torch.float32, *HALVES])
@pytest.mark.parametrize("kind", ["residual", "patch"])
def test_whatever_the_types_it_is_what_float64_makes_of_the_same_numbers(
    kind: str, images: torch.dtype, weights: torch.dtype, under_autocast: bool
) -> None:
    network = discriminator(kind, "none", "spectral").to(weights)
    exact = copy.deepcopy(network).double()
    given = make_images().to(images)
    expected = half_mean_squared_slope(exact, given.double())
    expected.backward()
    with torch.autocast("cpu", torch.bfloat16, enabled=under_autocast):
        penalty = gradient_penalty(network, given)
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty.double(), expected, rtol=1e-4, atol=0)
    penalty.backward()
    rounding = 1e-4 if weights == torch.float32 else 0.01
    for name, parameter in network.named_parameters():
        wanted = exact.get_parameter(name).grad
        assert (parameter.grad is None) == (wanted is None), name
        if wanted is not None:
            assert parameter.grad.dtype == weights
            limit = rounding * wanted.abs().max().item()
            torch.testing.assert_close(parameter.grad.double(), wanted, rtol=rounding, atol=limit, msg=name)


def test_conditions_of_any_type_are_given_to_the_discriminator_as_it_takes_them() -> None:
    """A label before the image, in half precision; a class after it, which stays an integer."""
    images, label = make_images(), torch.rand(3, 2, 16, 16).bfloat16()
    options = {"num_filters": 3, "max_num_filters": 6, "num_layers": 2}
    torch.manual_seed(0)
    of_label = pix2pixHD.Discriminator(label_channels=2, image_channels=3, **options).double()
    of_class = funit.Discriminator(num_classes=4, **options).double()
    classes = torch.tensor([3, 0, 3])
    cases = [
        (
            gradient_penalty(of_label.eval(), images, label, scores=lambda dis, x, label: dis(label, x)[0]),
            lambda x: of_label(label.double(), x)[0],
        ),
        (
            gradient_penalty(of_class, images, classes, scores=lambda dis, *inputs: [dis(*inputs)[0]]),
            lambda x: [of_class(x, classes)[0]],
        ),
    ]
    for found, scores in cases:
        torch.testing.assert_close(found, half_mean_squared_slope(lambda x, s=scores: (s(x),), images))


def test_no_gradient_flows_to_the_images() -> None:
    images = make_images().requires_grad_()
    gradient_penalty(discriminator("residual", "none", "none"), images).backward()
    assert images.grad is None


class SmallGan(Recipe):
    """A GAN with a penalty at real and at generated images."""

    def __init__(self) -> None:
        self.gen = nn.Conv2d(3, 3, 3, padding=1)
        self.dis = discriminator("residual", "none", "spectral").float()
        self.loss_weight = {"gan": 1.0, "r1": 0.5, "r2": 0.5}

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        fake = self.gen(batch["images"])
        yield (
            "dis",
            {
                "gan": self.dis(fake.detach())[0][0].mean() - self.dis(batch["images"])[0][0].mean(),
                "r1": gradient_penalty(self.dis, batch["images"]),
                "r2": gradient_penalty(self.dis, fake),
            },
        )
        yield "gen", {"gan": -self.dis(fake)[0][0].mean()}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return self.gen(batch["images"])


def test_both_penalties_train_a_discriminator_in_half_precision_as_in_float32() -> None:
    def losses(precision: str) -> dict[str, float]:
        """Of the discriminator, in the first and second iteration."""
        runtime = Runtime(torch.device("cpu"), precision=precision)
        torch.manual_seed(0)
        recipe = SmallGan()
        players = {
            name: Player(
                network,
                torch.optim.SGD(network.parameters(), lr=0.05),
                runtime,
                schedule=schedule.Constant(),
                by_iteration=False,
            )
            for name, network in recipe.networks.items()
        }
        trainer = Trainer(recipe, players, runtime, seed=0)
        batch = Batch({"images": make_images().float()})
        steps = [{phase.player: phase.losses for phase in trainer.train_step(batch)}["dis"] for _ in range(2)]
        assert all(p.grad is None and p.isfinite().all() for p in recipe.dis.parameters())
        return {f"{name} {i}": loss.item() for i, step in enumerate(steps) for name, loss in step.items()}

    exact, half = losses("fp32"), losses("bf16")
    assert half["r1 0"] == exact["r1 0"], "at real images nothing is in half precision"
    assert half == pytest.approx(exact, rel=0.05, abs=0.02)
    assert half["r2 0"] != exact["r2 0"]
    assert half["r2 1"] != half["r2 0"], "nothing was learned"
