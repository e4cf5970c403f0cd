"""What only an NVIDIA GPU can show: `pytest -m gpu`. Elsewhere all of these are skipped."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from contract.experiment import CPU, EXPERIMENTS, batch_of, config_of, train, trainer_of, write_data
from torch import Tensor

from imagier.losses import flow
from imagier.recipe import Position
from imagier.train import runtime as runtimes
from imagier.train.guard import Guard
from imagier.train.runtime import Precision, Runtime

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("gpu"))


@pytest.fixture
def gpu() -> Iterator[Runtime]:
    """In exact float32."""
    runtime = runtimes.start("cuda", single=True, local_rank=None)
    with runtimes.restore_torch_state(runtime):
        runtimes.set_tf32(False, runtime.device)
        yield runtime
    runtimes.stop(runtime)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_step_waits_for_nothing(
    name: str, precision: Precision, data: Path, gpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torch's own watch, which raises. The first steps may wait: they make what stays."""
    gpu.precision = precision
    monkeypatch.setattr(flow, "find_flow_by_dis", lambda images, others: images.new_zeros(len(images), 2, 1, 1))
    config = config_of(name, data)
    trainer, batch = trainer_of(config, gpu), batch_of(config, gpu)
    guard = Guard(trainer.players, gpu)
    for number in (1, 2):
        guard.check(number, Position(), batch, trainer.train_step(batch))
    torch.cuda.set_sync_debug_mode("error")
    try:
        phases = trainer.train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    guard.check(3, Position(), batch, phases)
    guard.settle()
    assert guard.bad == 0, "but for overflows of the loss scaler"


def test_losses_are_those_of_the_cpu(data: Path, gpu: Runtime) -> None:
    """Of a method that draws no noise, which would be another one."""

    def losses(runtime: Runtime) -> dict[str, float]:
        config = config_of("pix2pixHD", data)
        phases = trainer_of(config, runtime).train_step(batch_of(config, runtime))
        return {f"{phase.player}.{name}": loss.item() for phase in phases for name, loss in phase.losses.items()}

    assert losses(gpu) == pytest.approx(losses(CPU), rel=1e-3, abs=1e-4)


def test_a_run_on_the_gpu_continues_on_the_cpu_and_back(data: Path, gpu: Runtime) -> None:
    config = config_of("pix2pixHD", data)
    first, second, third = trainer_of(config, gpu), trainer_of(config, CPU, seed=1), trainer_of(config, gpu, seed=2)
    train(first, config, 2)
    for before, after in ((first, second), (second, third)):
        for name, player in after.players.items():
            state = copy.deepcopy(before.players[name].state_dict())
            assert isinstance(state["optimizer"]["param_groups"][0]["lr"], float)
            player.load_state_dict(state)
        after.step, after.position = before.step, before.position
        train(after, config, 2)
    rates: list[Tensor] = [player.optimizer.param_groups[0]["lr"] for player in third.players.values()]
    assert all(rate.is_cuda for rate in rates)


def test_steps_of_the_same_numbers_draw_the_same_noise(gpu: Runtime) -> None:
    rng = gpu.generator(1)
    torch.randn(5, generator=rng, device=gpu.device)
    again = torch.randn(100, generator=gpu.reseed(rng, 3, 4), device=gpu.device)
    assert torch.equal(again, torch.randn(100, generator=gpu.generator(3, 4), device=gpu.device))


@pytest.mark.parametrize("allowed", [True, False])
def test_products_of_matrices_are_exact_unless_tf32_is_allowed(allowed: bool, gpu: Runtime) -> None:
    x = torch.rand(512, 512, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(), runtimes.restore_torch_state(gpu):
        warnings.simplefilter("error")
        runtimes.set_tf32(allowed, gpu.device)
        error = ((x.cuda() @ x.cuda()).cpu().double() / (x.double() @ x.double()) - 1).abs().max().item()
    if torch.cuda.get_device_capability() >= (8, 0):
        assert (error > 1e-5) == allowed
