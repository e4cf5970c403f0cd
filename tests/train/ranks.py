"""What `torchrun` starts for test_ranks.py: a small GAN trained for some steps, every rank writes its final state."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from imagier.data.dataset import DatasetSpec
from imagier.data.loading.loader import Loader
from imagier.data.sample import Sample
from imagier.nn.average import ModelAverage
from imagier.nn.norm import SyncBatchNorm2d
from imagier.recipe import Batch, Losses, Recipe, StepContext
from imagier.run import build_training
from imagier.train import runtime as runtimes
from imagier.train import schedule
from imagier.train.gradients import GradientAverage
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

BATCH = 8
STEPS = 20
CALIBRATION_BATCH = 2
CALIBRATED = (1, 3, 5, 9)


class SmallGan(Recipe):
    """A GAN whose discriminator is penalized for its slope on real images (R1, Mescheder et al. 2018, eq. 9).

    Everything in it is smooth: at a kink, rounding would grow into a difference.
    """

    def __init__(self, *, r1: float) -> None:
        self.gen = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), SyncBatchNorm2d(8), nn.Softplus(), nn.Conv2d(8, 3, 3, padding=1)
        )
        self.dis = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), SyncBatchNorm2d(8), nn.Conv2d(8, 1, 3), nn.Softplus()
        )
        self.r1 = r1
        self.loss_weight = {"gan": 1.0, "r1": r1, "mse": 1.0}

    def step(self, batch: Batch, now: StepContext) -> Iterator[tuple[str, Losses]]:
        fake = self.gen(batch["label"])
        losses = {"gan": self.dis(fake.detach()).mean() - self.dis(batch["images"]).mean()}
        if self.r1:
            losses["r1"] = self._penalty(batch["images"])
        yield "dis", losses
        yield "gen", {"gan": -self.dis(fake).mean(), "mse": (fake - batch["images"]).square().mean()}

    def _penalty(self, images: Tensor) -> Tensor:
        def score(x: Tensor) -> Tensor:
            # Copies made in here, since a function under `grad` may only change what it made itself.
            buffers = {name: buffer.clone() for name, buffer in self.dis.named_buffers()}
            return functional_call(self.dis, {**dict(self.dis.named_parameters()), **buffers}, (x,)).sum()

        slopes = grad(score)(images)
        return slopes.square().sum(dim=(1, 2, 3)).mean() / 2

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return self.gen(batch["label"])


def batch_of(step: int, runtime: Runtime) -> Batch:
    """This rank's rows of the batch of a step, which is the same however many ranks share it."""
    rng = torch.Generator().manual_seed(step)
    whole = Batch(
        {"label": torch.randn(BATCH, 2, 8, 8, generator=rng), "images": torch.rand(BATCH, 3, 8, 8, generator=rng)}
    )
    return whole.split(runtime.world)[runtime.rank]


def train(runtime: Runtime, *, clip: float | None, r1: float) -> dict[str, Any]:
    """The players' state after some steps."""
    torch.manual_seed(0)
    recipe = SmallGan(r1=r1)
    players = {
        name: Player(
            network,
            torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.5),
            runtime,
            schedule=schedule.Constant(),
            by_iteration=False,
            clip_grad_norm=clip,
            average=ModelAverage(network, beta=0.8, start_iteration=2) if name == "gen" else None,
        )
        for name, network in recipe.networks.items()
    }
    recipe.train()
    trainer = Trainer(recipe, players, runtime, seed=0)
    for step in range(STEPS):
        trainer.train_step(batch_of(step, runtime))
    return {name: player.state_dict() for name, player in players.items()}


def digest(state: dict[str, Any]) -> str:
    """A hash of every bit of the networks and their averages."""
    hasher = hashlib.sha256()
    for player in state.values():
        for network in (player["network"], player.get("average", {}).get("network", {})):
            for name, tensor in network.items():
                hasher.update(name.encode() + tensor.numpy().tobytes())
    return hasher.hexdigest()


class Counted:
    """Samples that are one number, their index squared, everywhere."""

    classes = ()
    spec = DatasetSpec(sources=[], codecs=[], augmentations={})

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return Sample({"label": np.full((4, 4, 2), key[1] ** 2, np.float32)}, {"label": f"./{key[1]}"})

    def load(self, index: int) -> dict[str, np.ndarray]:
        return self[0, index].arrays


def calibrated(runtime: Runtime, samples: int, *, shuffle: bool = False) -> dict[str, Any]:
    """The statistics of a synchronized batch norm as it is looked at, if the training set has so many samples."""
    recipe = SmallGan(r1=0.0)
    recipe.gen = nn.Sequential(SyncBatchNorm2d(2)).eval()
    training = Loader(
        Counted(samples),
        CALIBRATION_BATCH,
        device=runtime.device,
        finish=lambda batch: Batch({"label": batch["label"].movedim(-1, 1)}),
        shuffle=shuffle,
        rank=runtime.rank,
        world=runtime.world,
    )
    with torch.no_grad(), build_training.build_calibration(training, 10, runtime)(recipe):
        return {name: tensor.clone() for name, tensor in recipe.gen.state_dict().items()}


def own_rows(count: int) -> list[Tensor]:
    """So many tensors, longer and longer ones."""
    return [torch.full((1 + index, 2), float(10 * count + index)) for index in range(count)]


def main() -> None:
    """Trains every combination and writes <folder>/<name>_<rank>.pt."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    runtime = runtimes.start("cpu", single=False, local_rank=None)
    for name, options in COMBINATIONS.items():
        state = train(runtime, **options)
        torch.save({"state": state, "digest": digest(state)}, folder / f"{name}_{runtime.rank}.pt")
    rows = [runtime.all_gather(own_rows(runtime.rank + more)) for more in (0, 1)]
    loss = torch.tensor([float(runtime.rank)])
    mean = GradientAverage(runtime).finish([], loss)
    torch.save({"rows": rows, "loss": mean}, folder / f"gathered_{runtime.rank}.pt")
    for samples in CALIBRATED:
        torch.save(calibrated(runtime, samples), folder / f"calibrated{samples}_{runtime.rank}.pt")
    runtimes.stop(runtime)


COMBINATIONS: dict[str, dict[str, Any]] = {
    "plain": {"clip": None, "r1": 0.0},
    "clipped": {"clip": 0.05, "r1": 0.0},
    "penalized": {"clip": None, "r1": 0.02},
}

if __name__ == "__main__":
    assert "RANK" in os.environ, "to be started by torchrun"
    main()
