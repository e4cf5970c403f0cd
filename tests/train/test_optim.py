"""What the papers of Fromage and Madam promise of a step, and that a checkpoint changes none of them."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from imagier.train.optim import Fromage, Madam

LR = 0.05


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng) for shape in shapes]


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(t) for t in tensors((4, 3), (5,), (2, 2, 2))]


def give_gradients(params: list[nn.Parameter], seed: int) -> None:
    for param, grad in zip(params, tensors(*[p.shape for p in params], seed=seed)):
        param.grad = grad


def test_a_step_of_fromage_turns_a_tensor_by_the_same_angle_whatever_the_gradients_size() -> None:
    moved = []
    for size in (1e-3, 1.0, 1e3):
        params = weights()
        give_gradients(params, seed=1)
        for param in params:
            param.grad *= size
        Fromage(params, lr=LR).step()
        moved.append(params)
    for before, *after in zip(weights(), *moved):
        for param in after:
            torch.testing.assert_close(param, after[0])
        step = after[0] * math.sqrt(1 + LR**2) - before
        assert step.norm().item() == pytest.approx(LR * before.norm().item(), rel=1e-5)


@pytest.mark.parametrize(("weight", "gradient"), [([0.0, 0.0], [3.0, 4.0]), ([3.0, 4.0], [0.0, 0.0])])
def test_fromage_descends_plainly_where_a_norm_is_zero(weight: list[float], gradient: list[float]) -> None:
    param = nn.Parameter(torch.tensor(weight))
    param.grad = torch.tensor(gradient)
    Fromage([param], lr=LR).step()
    expected = (torch.tensor(weight) - LR * torch.tensor(gradient)) / math.sqrt(1 + LR**2)
    torch.testing.assert_close(param.data, expected)


def madam_steps(weight: float, gradients: list[float], **options: float) -> list[float]:
    """The weight after each step; its tensor holds another one of the same size, so that this is the mean square."""
    param = nn.Parameter(torch.tensor([weight, -weight], dtype=torch.float64))
    tested = Madam([param], **{"lr": LR, "scale": 3.0, **options})
    found = []
    for gradient in gradients:
        param.grad = torch.full((2,), gradient, dtype=torch.float64)
        tested.step()
        found.append(param[0].item())
    return found


@pytest.mark.parametrize("gradient", [1e-6, 1.0, 1e6])
def test_a_steady_gradient_of_any_size_shrinks_or_grows_a_weight_by_the_same_factor_each_step(gradient: float) -> None:
    assert madam_steps(2.0, [gradient] * 3) == pytest.approx([2 * math.exp(-LR * t) for t in (1, 2, 3)])
    assert madam_steps(2.0, [-gradient] * 3) == pytest.approx([2 * math.exp(LR * t) for t in (1, 2, 3)])
    assert madam_steps(-2.0, [gradient] * 3) == pytest.approx([-2 * math.exp(LR * t) for t in (1, 2, 3)])


def test_a_gradient_is_measured_by_the_root_mean_square_of_those_so_far() -> None:
    """Of 1 and then 10, with a decay of 0.999: sqrt((0.999 * 1 + 100) / 1.999) is 7.108, and 10 / 7.108 1.40685."""
    first, second = madam_steps(2.0, [1.0, 10.0])
    assert math.log(first / second) / LR == pytest.approx(1.40685, abs=1e-5)


def test_madam_bounds_a_gradient_in_both_directions_and_a_weight_by_its_first_root_mean_square() -> None:
    for sign in (1, -1):
        first, second = madam_steps(2.0, [sign * 1.0, sign * 10.0], g_bound=1.2)
        assert math.log(first / second) / LR == pytest.approx(sign * 1.2)
    assert madam_steps(2.0, [-1.0] * 9, scale=1.1)[-1] == pytest.approx(2.2)
    assert madam_steps(-2.0, [1.0] * 9, scale=1.1)[-1] == pytest.approx(-2.2)


def test_madam_keeps_signs_and_zeros() -> None:
    params = weights()
    params[0].data[0] = 0
    signs = [p.detach().sign() for p in params]
    tested = Madam(params, lr=0.5, scale=3.0)
    for seed in range(20):
        give_gradients(params, seed)
        tested.step()
    assert all(torch.equal(p.sign(), sign) for p, sign in zip(params, signs))


@pytest.mark.parametrize("kind", ["fromage", "madam"])
def test_a_tensor_without_a_gradient_stays_and_its_time_stands_still(kind: str) -> None:
    options = {"scale": 3.0} if kind == "madam" else {}
    cls = {"fromage": Fromage, "madam": Madam}[kind]
    late, both = weights(), weights()
    one, other = cls(late, lr=LR, **options), cls(both, lr=LR, **options)
    give_gradients(late, seed=1)
    late[1].grad = None
    one.step()
    assert torch.equal(late[1], weights()[1])
    late[1].grad = tensors((4, 3), (5,), seed=1)[1]
    late[0].grad = late[2].grad = None
    one.step()
    give_gradients(both, seed=1)
    other.step()
    for a, b in zip(late, both):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["fromage", "madam"])
def test_a_saved_optimizer_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    options = {"scale": 2.0, "g_bound": 1.5} if kind == "madam" else {}
    cls = {"fromage": Fromage, "madam": Madam}[kind]
    straight = weights()
    first = cls(straight, lr=LR, **options)
    for seed in range(3):
        give_gradients(straight, seed)
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed = copy.deepcopy(straight)
    second = cls(resumed, lr=1.0, **dict.fromkeys(options, 9.0))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in range(3, 6):
        for params, tested in ((straight, first), (resumed, second)):
            give_gradients(params, seed)
            tested.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed))


@pytest.mark.parametrize("kind", ["fromage", "madam"])
def test_both_make_a_loss_smaller_and_return_what_the_closure_gave(kind: str) -> None:
    target = tensors((3, 4), seed=7)[0]
    param = nn.Parameter(target.sign() * 0.5)
    options = {"scale": 5.0} if kind == "madam" else {}
    tested = {"fromage": Fromage, "madam": Madam}[kind]([param], lr=0.02, **options)

    def closure() -> Tensor:
        tested.zero_grad()
        loss = (param - target).square().mean()
        loss.backward()
        return loss

    losses = [tested.step(closure).item() for _ in range(100)]
    assert losses[-1] < 0.1 * losses[0]
