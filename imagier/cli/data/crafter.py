"""`imagier data crafter`: records a data set of videos in a game that is seen from above."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from imagier.cli.arguments import parse_positive, parse_seed, parse_writable_folder
from imagier.run.progress import show_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    default = "data/crafter<PX>"
    add("--out", type=parse_writable_folder, metavar="DIR", help=f"the folder to make (default {default})")
    add("--frames", type=parse_positive, default=6000, metavar="N", help="of the training set (default 6000)")
    add("--size", type=int, default=64, metavar="PX", help="width and height of a frame (default 64)")
    add("--seed", type=parse_seed, default=0, metavar="N", help="of the worlds (default 0)")


def run(args: argparse.Namespace) -> int:
    """Records the set; returns the exit status."""
    from imagier.tools.demo.crafter import record

    out = args.out if args.out is not None else Path("data", f"crafter{args.size}")
    start = time.perf_counter()
    made = record(out, frames=args.frames, size_px=args.size, seed=args.seed, progress=show_progress)
    seconds = time.perf_counter() - start
    total = sum(made.frames.values())
    how = "already there" if made.is_reused else f"in {seconds:.1f} s, {total / seconds:.0f} frames/s"
    print(f"{out}: {made.frames['train']} train + {made.frames['val']} val frames, {how}")
    return 0
