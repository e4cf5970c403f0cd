"""trainer.checkpoint_activations: less memory, and the same run to the last bit."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from contract import experiment
from contract.checks import states
from contract.experiment import CPU, EXPERIMENTS, batch_of, config_of, train, trainer_of, write_data
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from imagier.config.load import ConfigError
from imagier.errors import UserError
from imagier.losses.gradient_penalty import gradient_penalty
from imagier.nn.blocks import ConvNormAct, ResBlock
from imagier.nn.conv import conv2d
from imagier.nn.norm import norm2d
from imagier.nn.recompute import recompute_blocks
from imagier.run.options import RunOptions
from imagier.run.training import train as train_run
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

BF16 = Runtime(torch.device("cpu"), precision="bf16")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("recomputed"))


def names_of(name: str, data: Path) -> str:
    """All players whose networks have blocks, as a value of the key."""
    networks = trainer_of(config_of(name, data)).recipe.networks
    return f"[{', '.join(player for player, network in networks.items() if recompute_blocks(network))}]"


def losses_of(trainer: Trainer, config: experiment.Config, steps: int) -> list[dict[str, Tensor]]:
    """Losses and norms of the gradient of all phases, on one batch."""
    found = []
    batch = batch_of(config, trainer.runtime)
    for _ in range(steps):
        for phase in trainer.train_step(batch):
            found.append({**phase.losses, "norm": phase.gradient_norm})
        trainer.step += 1
    return found


CASES = [
    *(
        pytest.param(name, CPU, (), marks=[pytest.mark.slow] if name != "pix2pixHD" else [])
        for name in EXPERIMENTS
        if name != "one_player"
    ),
    ("spade", BF16, ("trainer.channels_last=true",)),
    ("unit", CPU, ("trainer.accumulate=2",)),
]


@pytest.mark.parametrize(("name", "runtime", "overrides"), CASES, ids=lambda value: str(value)[:12])
def test_a_run_is_the_same_to_the_last_bit(name: str, runtime: Runtime, overrides: tuple[str, ...], data: Path) -> None:
    """Losses, gradients, weights, averages, batch norm statistics and power iterations."""
    players = names_of(name, data)
    assert "gen" in players
    plain = config_of(name, data, *overrides)
    saving = config_of(name, data, *overrides, f"trainer.checkpoint_activations={players}")
    one, other = trainer_of(plain, runtime), trainer_of(saving, runtime)
    expected, found = losses_of(one, plain, 2), losses_of(other, saving, 2)
    assert [each.keys() for each in expected] == [each.keys() for each in found]
    assert all(torch.equal(a[key], b[key]) for a, b in zip(expected, found) for key in a)
    kept = states(other)
    assert [key for key, tensor in states(one).items() if not torch.equal(tensor, kept[key])] == []


def noisy() -> nn.Sequential:
    """Blocks with noise, batch norms and spectral norms."""
    torch.manual_seed(0)
    blocks = [
        ResBlock(
            4,
            4,
            norm=lambda channels: norm2d("batch", channels),
            act=nn.LeakyReLU,
            weight_norm="spectral",
            has_noise=True,
        )
        for _ in range(4)
    ]
    network = nn.Sequential(*blocks, conv2d(4, 1, 1))
    for name, parameter in network.named_parameters():
        if name.endswith("noise.scale"):
            nn.init.constant_(parameter, 0.3)
    return network


def gradients_of(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Of two forwards, of which the second moves buffers before the backward of both."""
    torch.manual_seed(1)
    loss = network(x).square().mean() + network(2 * x).square().mean()
    return list(torch.autograd.grad(loss, list(network.parameters())))


def test_noise_is_drawn_once_and_buffers_move_once() -> None:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    plain, saving = noisy(), noisy()
    assert recompute_blocks(saving) == 4
    for a, b in zip(gradients_of(plain, x), gradients_of(saving, x)):
        assert torch.equal(a, b)
    after = torch.rand(1)
    gradients_of(plain, x)
    assert torch.equal(torch.rand(1), after)
    gradients_of(saving, x)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers()):
        assert torch.equal(a, b), name


def count_kept(network: nn.Module, x: Tensor) -> int:
    """Numbers that a forward keeps for its backward, weights aside."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = network(x)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    assert y.requires_grad
    return sum(size for pointer, size in kept.items() if pointer not in weights)


def test_blocks_keep_nothing_but_their_inputs() -> None:
    x = torch.randn(2, 4, 32, 32)
    plain, saving = noisy(), noisy()
    recompute_blocks(saving)
    assert count_kept(saving, x) == 5 * x.numel()  # four blocks, and a convolution behind them
    assert count_kept(plain, x) > 20 * x.numel()


def test_penalties_and_gradients_of_gradients_are_the_same() -> None:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    found = []
    for network in (noisy().train(), noisy().train()):
        if found:
            recompute_blocks(network)
        torch.manual_seed(1)
        penalty = gradient_penalty(network, x, scores=lambda network, x: [network(x)])
        image = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(image).sum(), image, create_graph=True)
        found.append(torch.autograd.grad(penalty + slope.square().sum(), list(network[0].block_0.conv.parameters())))
        network(x).mean().backward()  # and recomputes again afterwards
    assert all(torch.equal(a, b) for a, b in zip(*found))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_recompute_by_their_own_weights(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    """As `torch.save(network)` and workers copy them."""
    x = torch.randn(2, 4, 8, 8)
    plain, saving = noisy(), noisy()
    names = saving.state_dict().keys()
    recompute_blocks(saving)
    found = duplicate(saving)
    for network in (plain, found):
        network[0].block_0.conv.bias.data += 1
    assert found.state_dict().keys() == names
    assert all(torch.equal(a, b) for a, b in zip(gradients_of(plain, x), gradients_of(found, x)))
    assert count_kept(found, x) == 5 * x.numel()


def test_weights_that_change_before_the_backward_are_noticed_as_without() -> None:
    network = ConvNormAct(conv2d(3, 3, 3), nn.Identity(), nn.ReLU())
    recompute_blocks(network)
    loss = network(torch.randn(1, 3, 8, 8, requires_grad=True)).sum()
    with torch.no_grad():
        network.conv.weight.mul_(2)
    with pytest.raises(RuntimeError, match="have changed between"):
        loss.backward()


def test_nothing_is_recomputed_without_gradients_or_in_eval_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        "imagier.nn.recompute.checkpoint", lambda *args, **options: calls.append(1) or checkpoint(*args, **options)
    )
    network = noisy()
    recompute_blocks(network)
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        network(x)
    network.eval()(x)
    assert calls == []
    network.train()(x)
    assert len(calls) == 4


@pytest.mark.slow
def test_nothing_is_held_on_to(data: Path) -> None:
    config = config_of("spade", data, "trainer.checkpoint_activations=[gen, dis]")
    trainer = trainer_of(config)

    def count() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    train(trainer, config, 3)
    before = count()
    train(trainer, config, 5)
    assert count() == before


def test_a_player_that_does_not_exist_is_named(data: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of("spade", data, "trainer.checkpoint_activations=[gen, dsi]")
    assert "trainer.checkpoint_activations.1: no player 'dsi'; did you mean 'dis'?" in str(caught.value)


def test_a_network_without_blocks_is_named(data: Path) -> None:
    with pytest.raises(UserError) as caught:
        trainer_of(config_of("one_player", data, "trainer.checkpoint_activations=[net]"))
    assert (caught.value.where, caught.value.code) == ("trainer.checkpoint_activations", "no-blocks")


def test_compiling_is_refused(data: Path, tmp_path: Path) -> None:
    config = config_of("spade", data, "trainer.checkpoint_activations=[gen]")
    with pytest.raises(UserError) as caught:
        train_run(config, RunOptions(logdir=tmp_path / "log", compile=True, device="cpu"))
    assert (caught.value.where, caught.value.code) == ("trainer.checkpoint_activations", "not-compiled")
