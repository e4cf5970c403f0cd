"""What Imagier's loop costs beside the same training step written by hand: `python benchmarks/loop_overhead.py`.

Same networks, same losses, same data in memory. First a small SPADE at 64 x 64, then networks of one layer, where
nothing is left but overhead.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from itertools import count

import torch
import torch.nn.functional as F
from common import (
    HERE,
    add_json,
    batch_of,
    config_of,
    describe_ratio,
    interleaved,
    ratio,
    start,
    trainer_of,
    write_ratios,
)
from torch import Tensor, nn

from imagier.losses.feature_matching import feature_matching
from imagier.losses.gan import dis_fake_loss, dis_real_loss, gen_loss
from imagier.losses.perceptual import PerceptualLoss
from imagier.recipe import Batch, Losses, Position, Recipe, StepContext
from imagier.train import schedule
from imagier.train.hooks.log import Log
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Trainer

STEPS = 4
CONFIG = HERE.parent / "configs" / "spade" / "openmoji64.yaml"


def spade_by_hand(batch: Batch) -> Callable[[], None]:
    """A step of SPADE as one would write it for this one experiment."""
    config = config_of(CONFIG)
    trainer = trainer_of(config)
    gen, dis = trainer.recipe.networks["gen"], trainer.recipe.networks["dis"]
    perceptual = PerceptualLoss.from_config(config.recipe.options["perceptual_loss"])
    options = config.recipe.options
    weight, mode = options["loss_weight"], options["gan_mode"]
    average = trainer.players["gen"].average
    optimizers = {name: player.optimizer for name, player in trainer.players.items()}
    label, images = batch["label"], batch["images"]

    def step() -> None:
        fake = gen(label)["fake_images"]
        real_scores, _ = dis(label, images)
        fake_scores, _ = dis(label, fake.detach())
        loss = weight.gan * (dis_real_loss(real_scores, mode) + dis_fake_loss(fake_scores, mode))
        loss.backward(inputs=list(dis.parameters()))
        optimizers["dis"].step()
        optimizers["dis"].zero_grad()
        with torch.no_grad():
            _, real_features = dis(label, images)
        fake_scores, fake_features = dis(label, fake)
        loss = weight.gan * gen_loss(fake_scores, mode)
        loss = loss + weight.feature_matching * feature_matching(fake_features, real_features)
        loss = loss + weight.l1 * F.l1_loss(fake, images)
        loss = loss + weight.perceptual * perceptual(fake, images)
        loss.backward(inputs=list(gen.parameters()))
        optimizers["gen"].step()
        optimizers["gen"].zero_grad()
        if average is not None:
            average.update()

    return step


class OneLayer(Recipe):
    """A GAN of two linear maps."""

    loss_weight = {"gan": 1.0}  # noqa: RUF012

    def __init__(self) -> None:
        self.gen, self.dis = nn.Linear(1, 1), nn.Linear(1, 1)

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        fake = self.gen(batch["x"])
        yield "dis", {"gan": self.dis(fake.detach()).mean() - self.dis(batch["x"]).mean()}
        yield "gen", {"gan": -self.dis(fake).mean()}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return batch["x"]


def one_layer_by_hand(batch: Batch) -> Callable[[], None]:
    """A step of OneLayer as one would write it."""
    gen, dis = nn.Linear(1, 1), nn.Linear(1, 1)
    of_gen, of_dis = (torch.optim.SGD(network.parameters(), lr=1e-3) for network in (gen, dis))
    x = batch["x"]

    def step() -> None:
        fake = gen(x)
        (dis(fake.detach()).mean() - dis(x).mean()).backward(inputs=list(dis.parameters()))
        of_dis.step()
        of_dis.zero_grad()
        (-dis(fake).mean()).backward(inputs=list(gen.parameters()))
        of_gen.step()
        of_gen.zero_grad()

    return step


def fitting(trainer: Trainer, batch: Batch, steps: int) -> Callable[[], None]:
    """Some steps of `Trainer.fit` with a log, as a run takes them."""
    trainer.hooks = [Log([], every=10**9, samples_per_step=1, log_names=trainer.recipe.log_names)]
    stream = ((batch, Position(0, samples)) for samples in count(1))

    def run() -> None:
        wanted = trainer.step + steps
        trainer.fit(stream, lambda step, epoch: Outcome.DONE if step >= wanted else Outcome.GO_ON)

    return run


def repeated(step: Callable[[], None], steps: int) -> Callable[[], None]:
    """Some steps by hand."""

    def run() -> None:
        for _ in range(steps):
            step()

    return run


def main() -> None:
    """Prints the ratio and the overhead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    add_json(parser)
    args = parser.parse_args()
    start(args.threads)

    config = config_of(CONFIG)
    assert config.run.data.train is not None
    batch = batch_of(config, config.run.data.train.batch_size)
    runs = {
        "imagier": fitting(trainer_of(config), batch, STEPS),
        "by hand": repeated(spade_by_hand(batch), STEPS),
    }
    seconds = interleaved(runs, args.rounds)
    for name, taken in seconds.items():
        milliseconds = statistics.median(taken) / STEPS * 1e3
        print(f"SPADE 64 x 64, batch {len(batch)}, {name}: {milliseconds:.1f} ms a step")
    print(f"ratio: {describe_ratio(seconds['imagier'], seconds['by hand'])}")
    write_ratios(args.json, {"by hand / Imagier": ratio(seconds["by hand"], seconds["imagier"])})

    tiny = Batch({"x": torch.ones(1, 1)})
    recipe = OneLayer()
    runtime = Runtime(torch.device("cpu"))
    players = {
        name: Player(
            network,
            torch.optim.SGD(network.parameters(), lr=1e-3),
            runtime,
            schedule=schedule.Constant(),
            by_iteration=False,
        )
        for name, network in recipe.networks.items()
    }
    tiny_steps = 100
    runs = {
        "imagier": fitting(Trainer(recipe, players, runtime, seed=0), tiny, tiny_steps),
        "by hand": repeated(one_layer_by_hand(tiny), tiny_steps),
    }
    seconds = interleaved(runs, args.rounds)
    ours, theirs = (statistics.median(seconds[name]) / tiny_steps * 1e6 for name in runs)
    print(f"one layer: {ours:.0f} us a step, by hand {theirs:.0f} us; overhead {ours - theirs:.0f} us a step")


if __name__ == "__main__":
    main()
