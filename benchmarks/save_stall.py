"""How long a save keeps a training waiting, beside a plain torch.save: `python benchmarks/save_stall.py`.

A network of 100 million parameters with Adam, 1.2 GB in all. Only the disk of --folder and this machine's memory count;
what is written is removed.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from common import add_json, describe_ratio, ratio, start, write_ratios
from torch import Tensor, nn

from imagier.recipe import Batch, Losses, Recipe, StepContext
from imagier.train import schedule
from imagier.train.checkpoint import build_state, write
from imagier.train.checkpoint_files import CheckpointFiles, RetentionPolicy
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.saver import Saver
from imagier.train.snapshot import Snapshot, count_bytes
from imagier.train.trainer import Trainer

PLAIN, WHOLE, BEHIND = "torch.save", "the same, hashed and synced", "in the background"

WIDTH, ROWS = 1024, 16
PARAMETERS_PER_LAYER = WIDTH * (WIDTH + 1)


class Deep(Recipe):
    """Many equal layers."""

    players = ("gen",)
    loss_weight = {"error": 1.0}  # noqa: RUF012

    def __init__(self, layers: int) -> None:
        self.gen = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))

    def step(self, batch: Batch, now: StepContext) -> Iterator[tuple[str, Losses]]:
        yield "gen", {"error": self.gen(batch["x"]).square().mean()}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return batch["x"]


def trainer_of(parameters: int) -> Trainer:
    """A trainer whose optimizer has made its first step."""
    runtime = Runtime(torch.device("cpu"))
    recipe = Deep(round(parameters / PARAMETERS_PER_LAYER))
    optimizer = torch.optim.Adam(recipe.gen.parameters(), lr=1e-6, fused=True)
    player = Player(recipe.gen, optimizer, runtime, schedule=schedule.Constant(), by_iteration=False)
    return Trainer(recipe, {"gen": player}, runtime, seed=0)


@contextmanager
def saver_in(folder: Path, trainer: Trainer) -> Iterator[Saver]:
    """What a run saves with, its memory being there."""
    saver = Saver(
        CheckpointFiles(folder, RetentionPolicy(last=1)), Snapshot(trainer.runtime)
    )  # old ones are removed, too
    saver.prepare(trainer)
    saver.close()
    yield saver
    saver.close()


def stalls(trainer: Trainer, batch: Batch, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds that each way of saving keeps the training waiting; between two saves all is written.

    In the background that is the call, and what the next iteration's update waits for the end of the copying.
    """
    seconds: dict[str, list[float]] = {PLAIN: [], WHOLE: [], BEHIND: []}
    with saver_in(folder / "run", trainer) as saver:
        for trainer.step in range(1, rounds + 1):
            seconds[PLAIN].append(timed(lambda: torch.save(build_state(trainer, {}), folder / "plain.pt")))
            seconds[WHOLE].append(timed(lambda: write(folder / "whole.pt", trainer, {})))
            stall = [timed(lambda: saver.save(trainer, {}))]
            player = trainer.players["gen"]
            copied = player.before_move
            player.before_move = lambda copied=copied, stall=stall: stall.append(timed(copied))
            trainer.train_step(batch)
            saver.close()
            seconds[BEHIND].append(sum(stall))
    return seconds


def timed(run: Callable[[], object]) -> float:
    """Seconds of a call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def processor_s(trainer: Trainer, folder: Path, rounds: int) -> dict[str, float]:
    """Seconds of all processors that a save takes, medians; in the background they are another thread's."""
    seconds: dict[str, list[float]] = {PLAIN: [], BEHIND: []}
    with saver_in(folder / "processor", trainer) as saver:
        for trainer.step in range(1, rounds + 1):
            begin = time.process_time()
            torch.save(build_state(trainer, {}), folder / "plain.pt")
            seconds[PLAIN].append(time.process_time() - begin)
            begin = time.process_time()
            saver.save(trainer, {})
            saver.close()
            seconds[BEHIND].append(time.process_time() - begin)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def hashing() -> dict[str, float]:
    """GB/s of hashes."""
    data = bytes(2**28)
    speeds = {}
    for name in ("sha256", "blake2b", "sha1", "md5"):
        begin = time.perf_counter()
        hashlib.new(name, data).digest()
        speeds[name] = len(data) / (time.perf_counter() - begin) / 1e9
    return speeds


def main() -> None:
    """Prints the stall of each way, and what a save costs in all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument(
        "--folder", type=Path, help="a folder on the disk in question (default: that of temporary files)"
    )
    add_json(parser)
    args = parser.parse_args()
    start(args.threads)
    trainer = trainer_of(args.parameters)
    batch = Batch({"x": torch.ones(ROWS, WIDTH)})
    trainer.train_step(batch)
    print(f"a state of {count_bytes(build_state(trainer, {})) / 1e9:.2f} GB")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        seconds = stalls(trainer, batch, Path(folder), args.rounds)
        for name, taken in seconds.items():
            print(f"{name}: {statistics.median(taken) * 1e3:.0f} ms (first {taken[0] * 1e3:.0f} ms)")
        print(f"{BEHIND} / {PLAIN}: {describe_ratio(seconds[BEHIND], seconds[PLAIN])}")
        write_ratios(args.json, {f"{PLAIN} / {BEHIND}": ratio(seconds[PLAIN], seconds[BEHIND])})
        for name, spent in processor_s(trainer, Path(folder), args.rounds).items():
            print(f"processor time of one save, {name}: {spent:.2f} s")
    print("hashes, GB/s: " + ", ".join(f"{name} {speed:.2f}" for name, speed in hashing().items()))


if __name__ == "__main__":
    main()
