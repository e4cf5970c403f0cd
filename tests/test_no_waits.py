"""A training step reads no number of the device, so that a process never waits for it: every method, every optimizer.

Each step runs on a device without values (no_values.py), where whatever would wait raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.experiment import EXPERIMENTS, batch_of, config_of, trainer_of, write_data
from marks import mark_slow
from no_values import DEVICE, NoValues, let_kernels_run, note_copies_from_host, without_values
from torch import nn

from imagier.losses import flow
from imagier.models import spade
from imagier.recipe import Position
from imagier.train import guard as guards
from imagier.train.guard import Guard
from imagier.train.hooks.log import Log
from imagier.train.phase import Phase
from imagier.train.player import Player
from imagier.train.trainer import Outcome, Progress

CAPTURABLE = ("adam", "adamw", "adamax", "nadam", "radam", "rmsprop", "adadelta", "asgd")
"""Of torch.optim. (Rprop is one, too, but waits once, for the first values of its steps.)"""

OPTIMIZERS: dict[str, str] = {
    "clipped": "type: adam, clip_grad_norm: 1.0",
    "skipped": "type: adam, clip_grad_norm: 1.0, skip_grad: true",
    "skipped, not fused": "type: sgd, clip_grad_norm: 1.0, skip_grad: true",
    "fromage": "type: fromage",
    "madam": "type: madam, scale: 3.0",
    **{name: f"type: {name}" for name in (*CAPTURABLE, "adagrad", "sgd")},
    "fused sgd": "type: sgd, fused: true",
    "fused adagrad": "type: adagrad, fused: true",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("no_waits"))


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # OpenCV finds flow on the CPU, which a run logs; data may have it instead.
    monkeypatch.setattr(flow, "find_flow_by_dis", lambda images, others: images.new_zeros(len(images), 2, 1, 1))
    with let_kernels_run():
        yield


def train(data: Path, name: str, *overrides: str, steps: int = 1, since: int = 1) -> tuple[list[str], list[Phase]]:
    """Copies from the host that steps wait for, with what watches each of them; and the phases of the last.

    since: the first step whose copies count.
    """
    config = config_of(name, data, *overrides)
    trainer = trainer_of(config, NoValues())
    batch = without_values(batch_of(config))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(guards, "is_finite", lambda buffers: True)  # before the first step, it may wait
        guard = Guard(trainer.players, trainer.runtime)
    log = Log([], every=1000, samples_per_step=2, log_names=trainer.recipe.log_names)
    phases: list[Phase] = []
    with note_copies_from_host() as copies:
        for number in range(1, steps + 1):
            if number == since:
                copies.clear()
            phases = trainer.train_step(batch)
            guard.check(number, Position(), batch, phases)
            log.after_step(trainer, Progress(number, Position(), False, Outcome.GO_ON, phases))
    return list(dict.fromkeys(copies)), phases


@pytest.mark.parametrize("name", mark_slow(EXPERIMENTS, but=("spade", "unit")))
def test_a_step_of_every_method_waits_for_nothing(name: str, data: Path) -> None:
    copies, phases = train(data, name)
    assert copies == []
    assert phases and all(phase.gradient_norm.device == DEVICE for phase in phases)


def test_the_label_channels_that_occur_are_known_without_waiting(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's workers have found them."""
    monkeypatch.setattr(spade, "MANY_CHANNELS", 2)
    find, seen = spade._partial_label, []
    monkeypatch.setattr(spade, "_partial_label", lambda batch: seen.append(find(batch)) or seen[-1])
    copies, phases = train(data, "spade", "data.one_hot_num_classes={seg_maps: 30}")
    assert copies == [] and len(phases) == 2
    assert {channels.device for _, channels in seen} == {DEVICE}
    assert {(maps.shape[1], len(channels)) for maps, channels in seen} == {(8, 8)}, "not 30, of which 4 occur"


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_no_optimizer_waits(options: str, data: Path) -> None:
    copies, _ = train(data, "one_player", f"net_opt={{{options}, lr: 0.001}}", steps=3, since=2)
    assert copies == []


READS: dict[str, Any] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.any()),
    "float": lambda x: float(x.mean()),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "equal": lambda x: torch.equal(x, x + 1),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_would_wait_raises_here(read: Any) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        read(torch.ones(3, device=DEVICE))


WRITES: dict[str, Any] = {
    "list": (lambda x: x.new_tensor([1.0, 2.0, 3.0]), True),
    "index": (lambda x: x[torch.tensor([0, 1])], True),
    "part": (lambda x: x[:2], False),
    "to": (lambda x: torch.ones(3).to(x.device), True),
    "to, not waiting": (lambda x: torch.ones(3).to(x.device, non_blocking=True), False),
    "a number": (lambda x: x * torch.tensor(2.0), False),
}


@pytest.mark.parametrize(("write", "waits"), WRITES.values(), ids=WRITES)
def test_copies_from_the_host_that_would_wait_are_noted_here(write: Any, waits: bool) -> None:
    with note_copies_from_host() as copies:
        write(torch.ones(3, device=DEVICE))
    assert bool(copies) == waits


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("is_fused", [False, True])
def test_a_loss_scaler_waits_for_nothing(is_fused: bool, skips: bool) -> None:
    network = nn.Linear(2, 1, device=DEVICE)
    made = torch.optim.AdamW(network.parameters(), fused=is_fused)
    scaler = torch.amp.GradScaler(DEVICE.type)
    sizes = {"clip_grad_norm": 1.0, "skip_large_grads": skips}
    player = Player(
        network, made, NoValues(), schedule=lambda step: 0.5, by_iteration=True, scaler=scaler, average=None, **sizes
    )
    for step in range(3):
        player.set_time(0, step)
        player.backward(network(torch.ones(3, 2, device=DEVICE)).mean())
        with note_copies_from_host() as copies:
            assert player.update().device == DEVICE
    assert copies == []
