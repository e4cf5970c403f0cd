"""A whole method of your own in one file: pix2pix (Isola et al. 2017), as small as possible, and its training.

The config names this file by its dotted path, `type: examples.own_model`: the classes Generator, Discriminator and
Recipe in it are found, and their constructors' arguments are the keys of the config.

python -m examples.own_model [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from examples.shapes import data_section, draw_data
from imagier.losses.gan import dis_fake_loss, dis_real_loss, gen_loss
from imagier.losses.pixel import l1
from imagier.recipe import Batch, Losses, StepContext
from imagier.recipe import Recipe as BaseRecipe
from imagier.run import RunOptions, train


class Generator(nn.Sequential):
    def __init__(self, *, label_channels: int, image_channels: int, num_filters: int = 16) -> None:
        super().__init__(
            nn.Conv2d(label_channels, num_filters, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(num_filters, image_channels, 5, padding=2),
            nn.Tanh(),
        )


class Discriminator(nn.Sequential):
    def __init__(self, *, label_channels: int, image_channels: int, num_filters: int = 16) -> None:
        super().__init__(
            nn.Conv2d(label_channels + image_channels, num_filters, 4, stride=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(num_filters, 1, 4, stride=2),
        )


class Recipe(BaseRecipe):
    required_inputs = ("images", "label")

    def __init__(self, *, gen: Generator, dis: Discriminator, loss_weight: dict[str, float]) -> None:
        self.gen, self.dis, self.loss_weight = gen, dis, loss_weight

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """The loop updates the player that is yielded before it asks for the next."""
        real, fake = batch["images"], self.gen(batch["label"])
        fake_loss = dis_fake_loss(self.logits(batch, fake.detach()), "hinge")
        yield "dis", {"gan/fake": fake_loss, "gan/true": dis_real_loss(self.logits(batch, real), "hinge")}
        yield "gen", {"gan": gen_loss(self.logits(batch, fake), "hinge"), "l1": l1(fake, real)}

    def logits(self, batch: Batch, images: Tensor) -> list[Tensor]:
        return [self.dis(torch.cat([batch["label"], images], dim=1))]

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return self.gen(batch["label"])

    def target(self, batch: Batch) -> Tensor:
        return batch["images"]


def main(folder: Path) -> None:
    optimizer = {"type": "adam", "lr": 0.002, "adam_beta1": 0.5}
    config = {
        "max_iter": 100,
        "trainer": {"type": "examples.own_model", "loss_weight": {"gan": 1, "l1": 20}},
        "gen": {"type": "examples.own_model", "num_filters": 24},
        "gen_opt": optimizer,
        "dis": {"type": "examples.own_model"},
        "dis_opt": optimizer,
        "data": data_section(draw_data(folder / "shapes")),
    }
    result = train(config, RunOptions(logdir=folder / "own_model"))
    for name, scores in result.scores.items():
        print(f"{name}: L1 {scores['L1']:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "logs/examples"))
