"""Players move their weights, and only theirs, as optimizers, clipping and scalers say."""

from __future__ import annotations

import copy
import itertools
import json
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import golden
from safetensors.torch import load_file
from small_config import read, write
from torch import Tensor, nn

from imagier.config.find import find
from imagier.config.schema import OPTIMIZER, SCHEDULE
from imagier.errors import UserError
from imagier.run.build_training import build_optimizer
from imagier.train import schedule
from imagier.train.player import Player
from imagier.train.runtime import Runtime

CPU = Runtime(torch.device("cpu"))


class Parameters(nn.Module):
    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self.tensors = nn.ParameterList(nn.Parameter(t.clone()) for t in tensors)


def player(network: nn.Module, lr: float = 1.0, **options: Any) -> Player:
    sgd = torch.optim.SGD(network.parameters(), lr=lr)
    return Player(network, sgd, CPU, schedule=schedule.Constant(), by_iteration=False, **options)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd", "fromage", "madam", "madam_bound"])
def test_optimizers_make_the_recorded_steps(name: str, tmp_path: Path) -> None:
    recorded = load_file(golden("optim", f"{name}.safetensors"))
    options = json.loads(golden("optim", "meta.json").read_text())[name]
    network = Parameters([recorded[f"before.{i}"] for i in range(5)])
    config, notes = read(write(tmp_path), f"gen_opt={json.dumps(options)}")
    assert notes == []
    tested = build_optimizer(config.optimizers["gen"], network, "gen_opt")
    for t in range(1, 6):
        for i, parameter in enumerate(network.tensors):
            parameter.grad = recorded.get(f"grad.step{t}.{i}")
        tested.step()
        for i, parameter in enumerate(network.tensors):
            expected = recorded[f"after.step{t}.{i}"]
            limit = 1e-6 * max(1.0, expected.abs().max().item())
            assert (parameter - expected).abs().max() <= limit, (t, i)


@pytest.mark.parametrize("name", ["step", "constant", "linear", "linear_to_zero"])
def test_schedules_give_the_recorded_rates(name: str) -> None:
    case = json.loads(golden("optim", "lr_policies.json").read_text())[name]
    options = {key: value for key, value in case["lr_policy"].items() if key != "type"}
    factor = find(SCHEDULE, case["lr_policy"]["type"])(**options)
    rates = [case["base_lr"] * factor(epoch) for epoch in range(20)]
    assert rates == pytest.approx(case["lr_used_in_epoch"], rel=1e-12)


@pytest.mark.parametrize(("by_iteration", "expected"), [(False, 0.5**3), (True, 0.5**70)])
def test_time_is_counted_in_epochs_or_iterations(by_iteration: bool, expected: float) -> None:
    network = nn.Linear(1, 1)
    tested = player(network, lr=2.0)
    tested.schedule, tested.by_iteration = schedule.Step(step_size=1, gamma=0.5), by_iteration
    tested.set_time(epoch=3, step=70)
    assert tested.lr == pytest.approx(2.0 * expected)


def test_a_loss_moves_one_player_and_leaves_no_gradient_on_the_other() -> None:
    gen, dis = nn.Linear(2, 2), nn.Linear(2, 1)
    before = [p.clone() for p in dis.parameters()]
    tested = player(gen)
    tested.backward(dis(gen(torch.ones(3, 2))).sum())
    assert all(p.grad is None for p in dis.parameters())
    tested.update()
    assert all(torch.equal(p, old) for p, old in zip(dis.parameters(), before))


def with_gradient(values: list[float], **options: Any) -> tuple[nn.Module, Player]:
    network = Parameters([torch.zeros(len(values))])
    network.tensors[0].grad = torch.tensor(values)
    return network, player(network, **options)


def test_clipping_shortens_a_long_gradient_and_leaves_a_short_one() -> None:
    network, tested = with_gradient([3.0, 4.0], clip_grad_norm=1.0)
    tested.update()
    torch.testing.assert_close(network.tensors[0].data, torch.tensor([-0.6, -0.8]))
    network, tested = with_gradient([0.3, 0.4], clip_grad_norm=1.0)
    tested.update()
    torch.testing.assert_close(network.tensors[0].data, torch.tensor([-0.3, -0.4]))


def test_skipping_drops_a_long_gradient_once_and_goes_on() -> None:
    network, tested = with_gradient([3.0, 4.0], clip_grad_norm=1.0, skip_large_grads=True)
    tested.update()
    assert torch.equal(network.tensors[0].data, torch.zeros(2))
    network.tensors[0].grad = torch.tensor([0.3, 0.4])
    tested.update()
    torch.testing.assert_close(network.tensors[0].data, torch.tensor([-0.3, -0.4]))


def test_a_scaler_skips_an_overflow_and_lowers_its_scale() -> None:
    network = Parameters([torch.zeros(2)])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    tested = player(network, scaler=scaler, clip_grad_norm=10.0)
    tested.backward((network.tensors[0] * float("inf")).sum())
    tested.update()
    assert torch.equal(network.tensors[0].data, torch.zeros(2))
    assert scaler.get_scale() == 2.0
    tested.backward(network.tensors[0].sum())
    tested.update()
    torch.testing.assert_close(network.tensors[0].data, torch.full((2,), -1.0))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_skipping_drops_what_is_not_finite(value: float) -> None:
    network, tested = with_gradient([value, 0.1], clip_grad_norm=1.0, skip_large_grads=True)
    tested.update()
    assert torch.equal(network.tensors[0].data, torch.zeros(2))


def test_a_scaler_counts_an_overflow_that_is_skipped() -> None:
    network = Parameters([torch.zeros(2)])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    tested = player(network, scaler=scaler, clip_grad_norm=10.0, skip_large_grads=True)
    tested.backward((network.tensors[0] * float("inf")).sum())
    tested.update()
    assert torch.equal(network.tensors[0].data, torch.zeros(2))
    assert scaler.get_scale() == 2.0


def test_a_continued_run_follows_the_options_of_its_config_with_the_moments_of_its_past() -> None:
    def adam(betas: tuple[float, float]) -> Player:
        network = Parameters([torch.zeros(1)])
        made = torch.optim.Adam(network.parameters(), lr=1.0, betas=betas)
        return Player(network, made, CPU, schedule=schedule.Constant(), by_iteration=False)

    first, second = adam((0.9, 0.999)), adam((0.5, 0.999))
    first.params[0].grad = torch.tensor([2.0])
    first.update()
    second.load_state_dict(first.state_dict())
    second.params[0].grad = torch.tensor([4.0])
    second.update()
    (moments,) = second.optimizer.state.values()
    assert moments["exp_avg"].item() == pytest.approx(0.5 * (0.1 * 2.0) + 0.5 * 4.0)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"betas": [0.5, 0.99]},
    "fromage": {},
    "madam": {"scale": 3.0},
    "AdamW": {"fused": True},
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "NAdam": {},
    "Adagrad": {},
}


@pytest.mark.parametrize("before", [torch.contiguous_format, torch.channels_last], ids=["from rows", "from channels"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_continues_alike_in_another_memory_format(name: str, before: torch.memory_format, tmp_path: Path) -> None:
    """Three steps, a checkpoint, and three more, in the same and in the other format."""
    options = {"type": name, "lr": 0.01, **OPTIMIZERS[name]}
    config, _ = read(write(tmp_path), f"gen_opt={json.dumps(options)}")
    grads = [torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]

    def build(memory_format: torch.memory_format) -> Player:
        torch.manual_seed(0)
        network = nn.Conv2d(3, 5, 3, bias=False).to(memory_format=memory_format)
        made = build_optimizer(config.optimizers["gen"], network, "gen_opt")
        return Player(network, made, CPU, schedule=schedule.Constant(), by_iteration=False)

    def train(tested: Player, some: list[Tensor]) -> None:
        for grad in some:
            (weight,) = tested.params
            weight.grad = torch.empty_like(weight).copy_(grad)  # as autograd lays it
            tested.update()

    first = build(before)
    train(first, grads[:3])
    saved = copy.deepcopy(first.state_dict())
    ends = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        continued = build(memory_format)
        continued.load_state_dict(copy.deepcopy(saved))
        for state in continued.optimizer.state.values():
            moments = [each for each in state.values() if isinstance(each, Tensor) and each.dim() == 4]
            assert all(each.stride() == continued.params[0].stride() for each in moments)
        train(continued, grads[3:])
        ends.append(continued.params[0].detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-7)


def test_moments_of_weights_with_gaps_come_back() -> None:
    """Of a view of some columns; empty_like has no gaps."""
    grads = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(0))

    def build() -> Player:
        network = nn.Module()
        network.weight = nn.Parameter(torch.ones(4, 4)[:, :2])
        sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        return Player(network, sgd, CPU, schedule=schedule.Constant(), by_iteration=False)

    def train(tested: Player, some: Tensor) -> None:
        for grad in some:
            tested.params[0].grad = grad.clone()
            tested.update()

    whole, first, continued = build(), build(), build()
    train(whole, grads)
    train(first, grads[:3])
    continued.load_state_dict(copy.deepcopy(first.state_dict()))
    train(continued, grads[3:])
    assert torch.equal(continued.params[0], whole.params[0])


class NeverWaits(Runtime):
    """On the CPU as on an accelerator, whose numbers the process does not read."""

    @property
    def is_asynchronous(self) -> bool:
        return True


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [float("nan"), 1e3], ids=["not finite", "too large"])
def test_a_bad_gradient_moves_neither_weights_nor_moments_and_nobody_waits_to_know(name: str, bad: float) -> None:
    options = {"lr": 0.01, **OPTIMIZERS[name]}

    def train(runtime: Runtime, gradients: list[float]) -> list[Tensor]:
        network = Parameters([torch.tensor([1.0, -2.0])])
        made = find(OPTIMIZER, name)(network.parameters(), **options)
        sizes = {"clip_grad_norm": 10.0, "skip_large_grads": True}
        tested = Player(network, made, runtime, schedule=schedule.Constant(), by_iteration=False, **sizes)
        for gradient in gradients:
            network.tensors[0].grad = torch.tensor([1.0, gradient])
            tested.update()
        steps = {"step", "mu_product"}  # counted on the host
        state = [value for of in made.state.values() for key, value in of.items() if key not in steps]
        return [network.tensors[0].detach(), *(value for value in state if isinstance(value, Tensor))]

    expected = train(CPU, [2.0, 3.0])
    for found, known in zip(train(NeverWaits(CPU.device), [2.0, 3.0, bad]), expected, strict=True):
        assert torch.equal(found, known)
    assert torch.equal(train(NeverWaits(CPU.device), [bad])[0], torch.tensor([1.0, -2.0])), "not the first time either"


class Captures(NeverWaits):
    """On the CPU as on a GPU, where rates and counts lie in the memory of the device."""

    @property
    def captures_graphs(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "nadam", "radam", "rmsprop", "adadelta", "SGD", "madam"])
def test_a_rate_on_the_device_gives_the_same_weights_and_checkpoints_with_plain_numbers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for key, module in sys.modules.items() if key.startswith(("torch.optim", "torch.utils"))]:
        if hasattr(module, "_get_capturable_supported_devices"):
            monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *args, **options: ["cpu"])

    def build(runtime: Runtime) -> Player:
        network = Parameters([torch.tensor([1.0, -2.0])])
        made = find(OPTIMIZER, name)(network.parameters(), lr=0.125, **OPTIMIZERS.get(name, {}))
        return Player(network, made, runtime, schedule=lambda step: 0.5**step, by_iteration=True)

    def train(tested: Player, first: int) -> None:
        for step in range(first, first + 3):
            tested.set_time(0, step)
            tested.params[0].grad = torch.tensor([3.0, -1.0 - step])
            tested.update()

    on_device = build(Captures(CPU.device))
    rate = on_device.optimizer.param_groups[0]["lr"]
    train(on_device, 0)
    if name not in ("SGD", "madam"):  # which no graph can hold
        assert isinstance(rate, Tensor) and on_device.optimizer.param_groups[0]["lr"] is rate
    saved = copy.deepcopy(on_device.state_dict())
    assert saved["optimizer"]["param_groups"][0]["lr"] == on_device.lr == 0.125 / 4
    ends = []
    for begins, continues in itertools.product((CPU, Captures(CPU.device)), repeat=2):
        first, second = build(begins), build(continues)
        train(first, 0)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        train(second, 3)
        ends.append(second.params[0].detach())
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-5, atol=1e-6)


def partly_frozen() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    network[0].requires_grad_(False)
    return network


@pytest.mark.parametrize("scaled", [False, True], ids=["fp32", "fp16"])
def test_frozen_layers_stay_and_the_others_take_the_step_that_they_would_take_alone(scaled: bool) -> None:
    network, alone = partly_frozen(), partly_frozen()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0) if scaled else None
    tested = player(network, clip_grad_norm=0.1, scaler=scaler)
    other = torch.optim.SGD([*alone[1].parameters(), *alone[2].parameters()], lr=tested.lr)
    x = torch.arange(8.0).view(4, 2)
    for _ in range(3):
        tested.backward(network(x).square().mean())
        tested.update()
        alone(x).square().mean().backward()
        nn.utils.clip_grad_norm_(alone.parameters(), 0.1)
        other.step()
        other.zero_grad()
    for (name, value), expected in zip(network.named_parameters(), alone.parameters()):
        torch.testing.assert_close(value, expected, msg=name, rtol=1e-5, atol=1e-6)
    assert torch.equal(network[0].weight, partly_frozen()[0].weight)
    restored = player(partly_frozen(), clip_grad_norm=0.1, scaler=scaler)
    restored.load_state_dict(tested.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(restored.network.parameters(), network.parameters()))


def test_a_layer_may_be_freed_during_a_training() -> None:
    network = partly_frozen()
    tested, before = player(network), network[0].weight.clone()
    for frees in (False, True):
        network[0].requires_grad_(frees)
        tested.backward(network(torch.arange(8.0).view(4, 2)).square().mean())
        tested.update()
        assert torch.equal(network[0].weight, before) is not frees


@pytest.mark.parametrize("scaled", [False, True], ids=["fp32", "fp16"])
def test_losses_that_do_not_depend_on_a_player_move_nothing(scaled: bool) -> None:
    network, other = nn.Linear(1, 1), nn.Linear(1, 1)
    tested = player(network, scaler=torch.amp.GradScaler("cpu", init_scale=2.0) if scaled else None)
    before = network.weight.clone()
    tested.backward(other(torch.ones(1, 1)).sum())
    assert tested.update() == 0 and torch.equal(network.weight, before)


@pytest.mark.parametrize("factor", [-0.5, float("nan"), float("inf")])
def test_a_schedule_of_the_users_makes_no_rate_that_no_training_can_have(factor: float) -> None:
    tested = player(nn.Linear(1, 1))
    tested.schedule = lambda t: factor
    with pytest.raises(UserError) as error:
        tested.set_time(0, 0)
    assert (error.value.where, error.value.code) == ("lr_policy", "wrong-rate")


def test_gradients_are_gone_before_the_average_needs_memory() -> None:
    class Watching:
        network, gone = nn.Linear(1, 1), False

        def update(self) -> None:
            self.gone = gradient() is None

    average = Watching()
    tested = player(nn.Linear(1, 1), average=average)
    tested.backward(tested.network(torch.ones(1, 1)).sum())
    gradient = weakref.ref(tested.params[0].grad)
    tested.update()
    assert average.gone
