"""What `imagier train --compile` gains, and what it costs at the start: `python benchmarks/compiled.py [CONFIG ...]`.

By default the config of `make train` and the other small image configs, on noise. A compiled training and one that is
not take turns; "first" is the first iteration of each, in which the compiled one compiles.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
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

from imagier.run.training import allow_recompiling, compile_networks
from imagier.train.runtime import choose_precision

CONFIGS = HERE.parent / "configs"
SMALL = ("spade/openmoji64.yaml", "pix2pixHD/openmoji64.yaml", "unit/openmoji_tones64.yaml")


def main() -> None:
    """Prints a line for each config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, default=[CONFIGS / name for name in SMALL], metavar="CONFIG")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    add_json(parser)
    args = parser.parse_args()
    start(args.threads)
    ratios = {}
    with allow_recompiling(True):
        for path in args.configs:
            ratios[f"{path.parent.name}/{path.stem}"] = measure(path, args.rounds)
    write_ratios(args.json, ratios)


def measure(path: Path, rounds: int) -> float:
    """How many times faster compiled iterations are; prints it, and how long the first ones take."""
    config = config_of(path)
    precision = choose_precision(config.trainer.precision or "auto", True, torch.device("cpu"))[0]
    batch = batch_of(config)
    plain, compiled = (trainer_of(config, precision) for _ in range(2))
    compile_networks(compiled.recipe)
    runs = {"plain": lambda: plain.train_step(batch), "compiled": lambda: compiled.train_step(batch)}
    first = {name: seconds for name, (seconds,) in interleaved(runs, 1, warmup=0).items()}
    seconds = interleaved(runs, rounds)
    faster = describe_ratio(seconds["plain"], seconds["compiled"])
    later, later_compiled = (statistics.median(each) for each in seconds.values())
    print(
        f"{path.parent.name}/{path.stem}, {precision}: first {first['plain']:.1f}, compiled {first['compiled']:.1f} s; "
        f"later {later:.3f}, {later_compiled:.3f} s; plain / compiled {faster}",
        flush=True,
    )
    return ratio(seconds["plain"], seconds["compiled"])


if __name__ == "__main__":
    main()
