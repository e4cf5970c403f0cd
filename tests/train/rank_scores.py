"""What `torchrun` starts for test_ranks.py: scores of a small recipe by some ranks, written by the first."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imagier.data.dataset import DatasetSpec
from imagier.data.loading.loader import Loader
from imagier.data.sample import Sample
from imagier.metrics import l1, psnr
from imagier.recipe import Batch, Recipe
from imagier.train import runtime as runtimes
from imagier.train.hooks.baselines import SAMPLES
from imagier.train.hooks.evaluation import Evaluation
from imagier.train.runtime import Runtime
from imagier.train.scoring import Scorer
from imagier.train.trainer import Trainer
from imagier.train.view import View

CLASSES = 3


class Flat(Recipe):
    """Paints everything gray; knows the class of each pixel."""

    players = ("gen",)

    def __init__(self) -> None:
        self.gen = nn.Identity()

    def step(self, batch: Batch, ctx: object) -> Any:
        raise NotImplementedError

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return torch.zeros_like(batch["images"])

    def target(self, batch: Batch) -> Tensor:
        return batch["images"]

    def class_map(self, batch: Batch) -> Tensor:
        return nn.functional.one_hot(batch["classes"].long(), CLASSES).movedim(-1, 1)


class Noise:
    """Images of noise around a color of each class; more classes come towards the end of the set."""

    spec = DatasetSpec(sources=[], codecs=[], augmentations={})

    classes = ()

    def __init__(self, length: int, first: int) -> None:
        self.length = length
        self.first = first

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        rng = np.random.default_rng(self.first + key[1])
        classes = rng.integers(0, 1 + key[1] * CLASSES // self.length, (4, 4))
        images = (classes - 1)[..., None] * 0.5 + rng.normal(size=(4, 4, 3)) * 0.1
        arrays = {"images": images.astype(np.float32), "classes": classes[..., None].astype(np.float32)}
        return Sample(arrays, {"images": f"./{key[1]}"})


def score(runtime: Runtime, batch_size: int) -> dict[str, Any]:
    """All scores, those of the classes, and which training samples a mean color is of."""

    def load(dataset: Noise, *, shuffle: bool) -> Loader:
        def finish(batch: Batch) -> Batch:
            return batch.replace(images=batch["images"].movedim(-1, 1), classes=batch["classes"][..., 0])

        return Loader(
            dataset,
            batch_size,
            device=runtime.device,
            finish=finish,
            seed=5,
            shuffle=shuffle,
            rank=runtime.rank,
            world=runtime.world,
        )

    training, held_out = load(Noise(SAMPLES + 90, 0), shuffle=True), load(Noise(7, 10_000), shuffle=False)
    drawn: list[str] = []

    def draw() -> Any:
        for batch in training.draw(SAMPLES):
            drawn.extend(batch.keys["images"])
            yield batch

    hook = Evaluation(
        held_out.once,
        draw,
        View(lambda recipe: nullcontext()),
        lambda record: None,
        scorer=Scorer([l1.Metric(), psnr.Metric()], runtime),
        every=1,
        every_epochs=1,
        seed=0,
    )
    hook.after_fit(Trainer(Flat(), {}, runtime, seed=0), None)
    names = runtime.all_gather([torch.tensor([int(name[2:]) for name in drawn], dtype=torch.long)])
    return {
        "scores": hook.last,
        "classes": {name: [errors.values, errors.shares] for name, errors in hook.by_class.items()},
        "drawn": sorted(names.tolist()),
    }


def main() -> None:
    """Writes <folder>/scores<ranks>.pt."""
    torch.set_num_threads(1)
    runtime = runtimes.start("cpu", single=False, local_rank=None)
    found = score(runtime, batch_size=4)
    if runtime.is_main:
        torch.save(found, Path(sys.argv[1]) / f"scores{runtime.world}.pt")
    runtimes.stop(runtime)


if __name__ == "__main__":
    main()
