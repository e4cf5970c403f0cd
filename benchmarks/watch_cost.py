"""What it costs to watch a run: the guard and the health monitor. `python benchmarks/watch_cost.py`.

The main job's SPADE, without data and images: steps that are watched against steps that are not, in turns. Prints the
ratio of both, and what one reading of the monitor takes, as a share of the steps between two of them.
"""

from __future__ import annotations

import argparse
import statistics
import time

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
from loop_overhead import CONFIG, fitting

from imagier.run.hooks import FEW, HEALTH_EVERY
from imagier.train.guard import Guard
from imagier.train.hooks.health import Health
from imagier.train.view import View

STEPS = 3


def main() -> None:
    """Prints the ratio and the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    add_json(parser)
    args = parser.parse_args()
    start(args.threads)
    config = config_of(CONFIG)
    assert config.run.data.train is not None
    batch = batch_of(config, config.run.data.train.batch_size)

    plain, guarded = trainer_of(config), trainer_of(config)
    guarded.guard = Guard(guarded.players, guarded.runtime)
    runs = {"guarded": fitting(guarded, batch, STEPS), "plain": fitting(plain, batch, STEPS)}
    seconds = interleaved(runs, args.rounds)
    step_s = statistics.median(seconds["plain"]) / STEPS
    print(f"{HERE.name}: {step_s * 1e3:.1f} ms a step")
    print(f"guarded against plain: {describe_ratio(seconds['guarded'], seconds['plain'])}")
    write_ratios(args.json, {"plain / guarded": ratio(seconds["plain"], seconds["guarded"])})

    few = batch_of(config, FEW)
    view = View(lambda averaged: view.use_live_weights(plain))  # type: ignore[arg-type, return-value]
    players = list(plain.players)
    monitor = Health(lambda: few, few, lambda: [batch], view, print, players=players, every=HEALTH_EVERY, seed=0)
    monitor.measure(plain)  # reads the training images
    readings = []
    for _ in range(args.rounds):
        begin = time.perf_counter()
        monitor.measure(plain)
        readings.append(time.perf_counter() - begin)
    reading_s = statistics.median(readings)
    share = reading_s / (step_s * HEALTH_EVERY)
    print(f"a reading of {FEW} samples: {reading_s * 1e3:.1f} ms, every {HEALTH_EVERY} iterations: {share:.2%}")


if __name__ == "__main__":
    main()
