"""`imagier data vizdoom`: records a data set of videos in a game."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from imagier.cli.arguments import parse_seed, parse_writable_folder
from imagier.run.progress import show_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    default = "data/vizdoom<PX>"
    add("--out", type=parse_writable_folder, metavar="DIR", help=f"the folder to make (default {default})")
    add("--minutes", type=float, default=5, metavar="M", help="length of the training set, of 35 frames/s (default 5)")
    add("--size", type=int, default=96, metavar="PX", help="width and height of a frame (default 96)")
    add("--seed", type=parse_seed, default=0, metavar="N", help="of the walks (default 0)")
    add("--train_maps", nargs="+", metavar="MAP", help="maps of the training set, such as MAP01")
    add("--test_maps", nargs="+", metavar="MAP", help="maps of the held-out set")


def run(args: argparse.Namespace) -> int:
    """Records the set; returns the exit status."""
    from imagier.run.workers import count_cores
    from imagier.tools.demo.doom.recording import TEST_MAPS, TRAIN_MAPS, record

    out = args.out if args.out is not None else Path("data", f"vizdoom{args.size}")
    start = time.perf_counter()
    made = record(
        out,
        minutes=args.minutes,
        size_px=args.size,
        seed=args.seed,
        train_maps=args.train_maps or TRAIN_MAPS,
        test_maps=args.test_maps or TEST_MAPS,
        workers=count_cores(),
        progress=show_progress,
    )
    seconds = time.perf_counter() - start
    total = sum(made.frames.values())
    how = "already there" if made.is_reused else f"in {seconds:.1f} s, {total / seconds:.0f} frames/s"
    print(f"{out}: {made.frames['train']} train + {made.frames['val']} val frames, {how}")
    return 0
