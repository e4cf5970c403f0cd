"""Adversarial losses against recorded numbers and against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from golden import golden
from safetensors.torch import load_file
from torch import Tensor

from imagier.losses.gan import GanMode, dis_fake_loss, dis_real_loss, gen_loss, relativistic_logits

MODES: tuple[GanMode, ...] = ("hinge", "least_square", "non_saturated", "softplus", "wasserstein")
LOSSES = {"dis_real": dis_real_loss, "dis_fake": dis_fake_loss, "gen": gen_loss}
DECAY, MINIMUM = 0.6, 0.3  # of the recorded top-k losses


def bce(x: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, torch.full_like(x, target))


FORMULAS = {
    "hinge": (lambda x: -(x - 1).clamp(max=0).mean(), lambda x: -(-x - 1).clamp(max=0).mean(), lambda x: -x.mean()),
    "least_square": (
        lambda x: F.mse_loss(x, torch.ones_like(x)) / 2,
        lambda x: F.mse_loss(x, torch.zeros_like(x)) / 2,
        lambda x: F.mse_loss(x, torch.ones_like(x)) / 2,
    ),
    "non_saturated": (lambda x: bce(x, 1), lambda x: bce(x, 0), lambda x: bce(x, 1)),
    "softplus": (lambda x: bce(x, 1), lambda x: bce(x, 0), lambda x: bce(x, 1)),
    "wasserstein": (lambda x: -x.mean(), lambda x: x.mean(), lambda x: -x.mean()),
}


def recorded() -> dict[str, Tensor]:
    return load_file(golden("optim", "gan_losses.safetensors"))


def scores(numbers: dict[str, Tensor]) -> list[Tensor]:
    return [numbers[f"scores.{i}"].clone().requires_grad_() for i in range(2)]


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.view_as(found), rtol=0, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mode", MODES)
def test_losses_and_gradients_are_the_recorded_ones(mode: GanMode, name: str) -> None:
    numbers = recorded()
    outputs = scores(numbers)
    loss = LOSSES[name](outputs, mode)
    assert_close(loss, numbers[f"{mode}.{name}"])
    for i, gradient in enumerate(torch.autograd.grad(loss, outputs)):
        assert_close(gradient, numbers[f"{mode}.{name}.grad.{i}"])
    assert_close(LOSSES[name](outputs[:1], mode), numbers[f"{mode}.{name}.single_tensor"])


@pytest.mark.parametrize("epoch", range(4))
@pytest.mark.parametrize("per_sample", [False, True])
def test_topk_losses_are_the_recorded_ones(per_sample: bool, epoch: int) -> None:
    numbers = recorded()
    prefix = f"topk_{'separate' if per_sample else 'joint'}.epoch{epoch}"
    keep = max(DECAY**epoch, MINIMUM)
    assert keep == pytest.approx(numbers[f"{prefix}.k"].item())
    assert_close(gen_loss(scores(numbers), "hinge", keep, per_sample), numbers[f"{prefix}.gen"])
    assert_close(dis_fake_loss(scores(numbers), "hinge"), numbers[f"{prefix}.dis_fake"])


@pytest.mark.parametrize("mode", MODES)
def test_losses_follow_their_formulas_and_average_over_discriminators(mode: GanMode) -> None:
    torch.manual_seed(0)
    outputs = [2 * torch.randn(2, 1, 4, 5), 2 * torch.randn(3, 1, 2, 2)]
    for loss, formula in zip(LOSSES.values(), FORMULAS[mode]):
        expected = (formula(outputs[0]) + formula(outputs[1])) / 2
        torch.testing.assert_close(loss(outputs, mode), expected)


@pytest.mark.parametrize("mode", MODES)
def test_logits_of_any_size_give_finite_losses_and_gradients(mode: GanMode) -> None:
    for loss in LOSSES.values():
        logits = torch.tensor([-1e4, 0.0, 1e4], requires_grad=True)
        value = loss([logits], mode)
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES.values())
def test_losses_of_half_precision_are_computed_in_float32(loss) -> None:
    logits = torch.linspace(-3, 3, 40).bfloat16()
    assert torch.equal(loss([logits], "hinge"), loss([logits.float()], "hinge"))


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.99])
@pytest.mark.parametrize("per_sample", [False, True])
def test_only_the_largest_logits_get_a_gradient(per_sample: bool, keep: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 1, 2, 4, requires_grad=True)
    gen_loss([logits], "wasserstein", keep, per_sample).backward()
    rows = logits.detach().view(3, 8) if per_sample else logits.detach().view(1, 24)
    count = math.ceil(keep * rows.shape[1])
    smallest_kept = rows.sort(dim=1, descending=True).values[:, count - 1 : count]
    expected = torch.where(rows >= smallest_kept, -1 / (count * len(rows)), 0.0)
    torch.testing.assert_close(logits.grad, expected.view_as(logits))


def test_relative_subtracts_the_opposite_scores_of_each_discriminator() -> None:
    a, b = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])], [torch.tensor([5.0, 7.0]), torch.tensor([11.0])]
    assert [x.tolist() for x in relativistic_logits(a, to=b)] == [[-4.0, -5.0], [-8.0]]
