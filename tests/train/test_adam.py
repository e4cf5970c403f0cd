"""Our Adam is torch's, with less memory: without a mean that nobody needs, or with means in bfloat16."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imagier.train.optim import Adam, StochasticRounding

SHAPES = ((4, 3, 3, 3), (5,), (2, 2, 2, 2))


def weights() -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=rng)) for shape in SHAPES]
    params[0].data = params[0].data.to(memory_format=torch.channels_last)
    return params


def give_gradients(params: list[nn.Parameter], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.empty_like(param).copy_(torch.randn(param.shape, generator=rng))


def train(params: list[nn.Parameter], optimizer: torch.optim.Optimizer, seeds: range, bad: int = -1) -> None:
    """Steps with random gradients, of which that with the seed `bad` is not finite."""
    for seed in seeds:
        give_gradients(params, seed)
        if seed == bad:
            params[0].grad[0] = torch.nan  # type: ignore[index]
        optimizer.found_inf = torch.tensor(float(seed == bad))  # type: ignore[attr-defined]
        optimizer.step()


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.5, 0.9)])
def test_it_moves_weights_as_that_of_torch_to_the_last_bit(betas: tuple[float, float]) -> None:
    ours, theirs = weights(), weights()
    first, second = Adam(ours, lr=0.01, betas=betas), torch.optim.Adam(theirs, lr=0.01, betas=betas, fused=True)
    for optimizer, params in ((first, ours), (second, theirs)):
        train(params, optimizer, range(20), bad=7)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
    names = {"step", "exp_avg_sq", *(["exp_avg"] if betas[0] else [])}
    assert all(state.keys() == names for state in first.state.values())


def test_a_state_is_loaded_with_and_without_momentum() -> None:
    """That of torch's Adam stands for a checkpoint of before, which has the mean that is not needed."""
    params = weights()
    whole = torch.optim.Adam(params, betas=(0.0, 0.9), fused=True)
    train(params, whole, range(3))
    plain, lively = Adam(params, betas=(0.0, 0.9)), Adam(params, betas=(0.5, 0.9))
    options = plain.state_dict()["param_groups"]
    plain.load_state_dict({**whole.state_dict(), "param_groups": options})
    assert all(state.keys() == {"step", "exp_avg_sq"} for state in plain.state.values())
    lively.load_state_dict({**plain.state_dict(), "param_groups": lively.state_dict()["param_groups"]})
    train(params, lively, range(3, 4))
    for param in params:
        assert torch.equal(lively.state[param]["exp_avg"], 0.5 * param.grad)  # of a mean that begins at 0


def test_rounding_gives_one_of_the_two_neighbors_and_the_exact_number_in_the_mean() -> None:
    exact = torch.tensor([1.0, 1.001, -1.003, 3.3e-9, 1 + 2**-9, 0.0, float("inf")])
    total, steps = torch.zeros(7, dtype=torch.float64), 2000
    below = (exact.view(torch.int32) & -0x10000).view(torch.float32)
    for step in range(steps):
        found = torch.empty(7, dtype=torch.bfloat16)
        StochasticRounding(torch.tensor(float(step)), 7)(exact.clone(), into=found)
        ulps = (found.float().view(torch.int32) - below.view(torch.int32)) >> 16
        assert ((ulps == 0) | ((ulps == 1) & (exact != below))).all()
        total += found.double()
    ulp = 2.0**-7 * exact[1:5].abs().double()
    error = (total[1:5] / steps - exact[1:5].double()).abs() / ulp
    assert error.max() < 5 * 0.5 / steps**0.5  # five standard deviations of a coin's mean
    assert torch.equal(total[[0, 5, 6]] / steps, exact[[0, 5, 6]].double())


def test_the_noise_of_a_step_is_uniform_and_another_one_in_every_step_and_place() -> None:
    size = 2**18
    first, second = (StochasticRounding(torch.tensor(step), size).noise for step in (1.0, 2.0))
    for noise in (first, second):
        counts = torch.bincount(noise >> 8, minlength=256).double()
        assert ((counts - size / 256) ** 2 / (size / 256)).sum() < 400  # chi^2 of 255 degrees: 255 +- 23
    for a, b in ((first, second), (first[1:], first[:-1])):
        assert torch.corrcoef(torch.stack([a, b]).double())[0, 1].abs() < 5 / size**0.5


def test_tensors_longer_than_the_period_are_rounded_to_their_end() -> None:
    exact = torch.full((100_000,), 1.001)
    found = torch.empty(len(exact), dtype=torch.bfloat16)
    rounding = StochasticRounding(torch.tensor(1.0), 40_000)
    rounding(torch.full((7,), 1.001), into=torch.empty(7, dtype=torch.bfloat16))
    rounding(exact, into=found)
    assert found.double().mean().item() == pytest.approx(1.001, abs=1e-4)
    assert torch.equal(exact, found.float())


def measure_squares(**options: Any) -> Tensor:
    """The mean squares of gradients of 1 to 4, after 1,500 steps with a long memory."""
    param = nn.Parameter(torch.zeros(4, 256))
    tested = Adam([param], lr=0.0, betas=(0.0, 0.999), **options)
    for _ in range(1500):
        param.grad = torch.arange(1.0, 5.0)[:, None].expand(4, 256).contiguous()
        tested.step()
    return tested.state[param]["exp_avg_sq"].double().mean(dim=1)


def test_means_in_bfloat16_follow_small_changes_that_plain_rounding_would_lose() -> None:
    """One step changes a mean by at most 0.1 %, and bfloat16 knows steps of 0.4 to 0.8 % alone."""
    torch.testing.assert_close(measure_squares(moments="bf16"), measure_squares(), rtol=0.005, atol=0)


def fit(seed: int, **options: Any) -> float:
    """The loss of a small network that learns a function, in 200 steps."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
    tested = Adam(network.parameters(), lr=3e-3, betas=(0.5, 0.99), **options)
    rng = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(200):
        x = torch.randn(64, 3, generator=rng)
        loss = (network(x)[:, 0] - x.prod(dim=1).tanh()).square().mean()
        tested.zero_grad()
        loss.backward()
        tested.step()
        losses.append(loss.item())
    return sum(losses[-50:]) / 50


def test_a_network_learns_with_either_as_well_as_with_another_seed() -> None:
    exact, rounded = ([fit(seed, moments=kind) for seed in range(4)] for kind in ("fp32", "bf16"))
    assert exact != rounded
    largest = max(abs(a - b) for a, b in zip(exact, rounded))
    assert largest < max(exact) - min(exact)


@pytest.mark.parametrize("betas", [(0.0, 0.99), (0.5, 0.99)])
def test_means_in_bfloat16_continue_bit_for_bit_and_are_half_as_large(betas: tuple[float, float]) -> None:
    straight = weights()
    first = Adam(straight, lr=0.01, betas=betas, moments="bf16")
    train(straight, first, range(3), bad=1)
    saved = copy.deepcopy(first.state_dict())
    means = [value for state in saved["state"].values() for name, value in state.items() if name != "step"]
    assert {mean.dtype for mean in means} == {torch.bfloat16}
    resumed = copy.deepcopy(straight)
    second = Adam(resumed, lr=0.01, betas=betas, moments="bf16")
    second.load_state_dict(saved)
    for params, optimizer in ((straight, first), (resumed, second)):
        train(params, optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed))


def test_either_kind_of_means_is_loaded_into_the_other() -> None:
    params = weights()
    exact, rounded = Adam(params, moments="fp32"), Adam(params, moments="bf16")
    train(params, exact, range(3))
    rounded.load_state_dict({**exact.state_dict(), "param_groups": rounded.state_dict()["param_groups"]})
    again = Adam(params, moments="fp32")
    again.load_state_dict({**rounded.state_dict(), "param_groups": again.state_dict()["param_groups"]})
    for param in params:
        mean = exact.state[param]["exp_avg_sq"]
        assert torch.equal(rounded.state[param]["exp_avg_sq"], mean.bfloat16())
        assert torch.equal(again.state[param]["exp_avg_sq"], mean.bfloat16().float())
        assert rounded.state[param]["step"] == exact.state[param]["step"] == 3


def test_an_update_that_is_not_finite_leaves_means_in_bfloat16_as_they_are() -> None:
    params = weights()
    tested = Adam(params, betas=(0.5, 0.9), moments="bf16")
    train(params, tested, range(2))
    before = copy.deepcopy([dict(tested.state[param]) for param in params])
    train(params, tested, range(2, 3), bad=2)
    for param, state in zip(params, before):
        assert all(torch.equal(tested.state[param][name], value) for name, value in state.items())
