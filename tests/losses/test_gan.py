"""Adversarial losses against recorded numbers, numbers by hand, and torch's cross entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from golden import golden
from safetensors.torch import load_file
from torch import Tensor

from imagier.losses.gan import GanMode, center_logits, dis_fake_loss, dis_real_loss, gen_loss, relativistic_logits

MODES: tuple[GanMode, ...] = ("hinge", "least_square", "non_saturated", "softplus", "wasserstein")
LOSSES = {"dis_real": dis_real_loss, "dis_fake": dis_fake_loss, "gen": gen_loss}
DECAY, MINIMUM = 0.6, 0.3  # of the recorded top-k losses


LOGITS = (-2.0, 0.0, 0.5, 3.0)
BY_HAND = {
    "hinge": {"dis_real": (3, 1, 0.5, 0), "dis_fake": (0, 1, 1.5, 4), "gen": (2, 0, -0.5, -3)},
    "least_square": {"dis_real": (4.5, 0.5, 0.125, 2), "dis_fake": (2, 0, 0.125, 4.5), "gen": (4.5, 0.5, 0.125, 2)},
    "wasserstein": {"dis_real": (2, 0, -0.5, -3), "dis_fake": (-2, 0, 0.5, 3), "gen": (2, 0, -0.5, -3)},
}
"""The loss of each of LOGITS."""


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


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mode", BY_HAND)
def test_each_logit_costs_what_it_does_by_hand(mode: GanMode, name: str) -> None:
    found = [LOSSES[name]([torch.tensor([logit])], mode).item() for logit in LOGITS]
    assert found == pytest.approx(BY_HAND[mode][name], abs=1e-6)


@pytest.mark.parametrize(("name", "target"), [("dis_real", 1.0), ("dis_fake", 0.0), ("gen", 1.0)])
@pytest.mark.parametrize("mode", ["non_saturated", "softplus"])
def test_cross_entropy_is_that_of_torch(mode: GanMode, name: str, target: float) -> None:
    logits = torch.tensor(LOGITS)
    expected = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
    torch.testing.assert_close(LOSSES[name]([logits], mode), expected)


@pytest.mark.parametrize("loss", LOSSES.values())
@pytest.mark.parametrize("mode", MODES)
def test_discriminators_count_alike_however_many_patches_they_have(mode: GanMode, loss: Callable) -> None:
    torch.manual_seed(0)
    outputs = [2 * torch.randn(2, 1, 4, 5), 2 * torch.randn(3, 1, 2, 2)]
    each = [loss([logits], mode) for logits in outputs]
    torch.testing.assert_close(loss(outputs, mode), (each[0] + each[1]) / 2)


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


def test_the_largest_are_those_of_all_samples_unless_each_is_to_have_its_own() -> None:
    logits = torch.tensor([[9.0, 8.0], [1.0, 0.0]])
    assert gen_loss([logits], "wasserstein", keep=0.5).item() == -8.5
    assert gen_loss([logits], "wasserstein", keep=0.5, per_sample=True).item() == -5.0


@pytest.mark.parametrize("mode", ["hinge", "least_square", "non_saturated", "wasserstein"])
def test_a_centered_logit_of_0_is_where_both_sides_of_the_discriminator_pull_alike(mode: GanMode) -> None:
    x = torch.linspace(-0.9, 0.9, 7) + (0.5 if mode == "least_square" else 0.0)
    (centered,) = center_logits([x], mode)
    slopes = []
    for loss in (dis_real_loss, dis_fake_loss):
        logits = x.clone().requires_grad_()
        loss([logits], mode).backward()
        slopes.append(logits.grad)
    at_0 = centered.abs().argmin()
    torch.testing.assert_close(slopes[0][at_0], -slopes[1][at_0])
    assert centered[at_0] == pytest.approx(0, abs=1e-6)
    assert (centered.diff() > 0).all(), "the larger, the more real"


def test_relative_subtracts_the_opposite_scores_of_each_discriminator() -> None:
    a, b = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])], [torch.tensor([5.0, 7.0]), torch.tensor([11.0])]
    assert [x.tolist() for x in relativistic_logits(a, to=b)] == [[-4.0, -5.0], [-8.0]]
