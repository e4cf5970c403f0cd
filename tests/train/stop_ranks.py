"""What `torchrun` starts for test_stop_ranks.py: two ranks, of which one asks for something."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from torch import nn

from imagier.recipe import Batch, Position
from imagier.train import runtime as runtimes
from imagier.train import schedule
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Progress, Trainer

MAX_ITER = 6


class Recipe:
    """A single weight that learns."""

    def __init__(self) -> None:
        self.gen = nn.Linear(1, 1)

    def train(self) -> None:
        """Nothing differs in training."""

    def step(self, batch: Batch, ctx: object) -> object:
        yield "gen", {"loss": self.gen(batch["x"]).square().mean()}

    def total(self, losses: dict) -> torch.Tensor:
        return losses["loss"]


class Seen:
    """A hook that notes the outcome of every step."""

    def __init__(self, then: Callable[[int], None]) -> None:
        self.outcomes: list[str] = []
        self.then = then

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        self.outcomes.append(progress.outcome.name)
        self.then(progress.step)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        """Nothing more to note."""


def outcomes(
    runtime: Runtime, asked: dict[int, Outcome], stops: Callable[[int], None], then: Callable[[int], None]
) -> list[str]:
    """Of every step of a run in which this rank asks for something at some steps. stops, then: called before, after."""
    torch.manual_seed(0)
    recipe, seen = Recipe(), Seen(then)
    sgd = torch.optim.SGD(recipe.gen.parameters(), lr=0.1)
    player = Player(recipe.gen, sgd, runtime, schedule=schedule.Constant(), by_iteration=False)
    trainer = Trainer(recipe, {"gen": player}, runtime, seed=0, hooks=[seen])  # type: ignore[arg-type]

    def stop(step: int, epoch: int) -> Outcome:
        stops(step)
        return Outcome.DONE if step >= MAX_ITER else asked.get(step, Outcome.GO_ON)

    trainer.fit(((Batch({"x": torch.ones(1, 1)}), Position(0, step + 1)) for step in count()), stop)
    return seen.outcomes


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    runtime = runtimes.start("cpu", single=False, local_rank=None)
    is_second = runtime.rank == 1
    pipe = folder / "pipe"

    def tell(step: int) -> None:
        if step == 2 and not is_second:
            pipe.write_text("the first rank has finished step 2")

    def wait(step: int) -> None:
        if step == 2 and is_second:
            pipe.read_text()

    def nothing(step: int) -> None:
        """Goes on."""

    requests = {
        "interrupted": {3: Outcome.INTERRUPTED},
        "saved": {2: Outcome.SAVE},
        "at once": {0: Outcome.INTERRUPTED},
        "just before the end": {MAX_ITER - 1: Outcome.INTERRUPTED},
    }
    found = {name: outcomes(runtime, asked if is_second else {}, nothing, nothing) for name, asked in requests.items()}
    found["slow"] = outcomes(runtime, {}, wait, tell)
    (folder / f"outcomes{runtime.rank}.json").write_text(json.dumps(found))
    runtimes.stop(runtime)


if __name__ == "__main__":
    main()
