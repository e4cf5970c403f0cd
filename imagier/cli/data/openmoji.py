"""`imagier data openmoji`: draws the default data set."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from imagier.cli.arguments import add_drawing
from imagier.run.progress import show_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_drawing(parser, "data/openmoji<PX>")
    parser.add_argument("--skin-tones", action="store_true", help="also draw the variants with skin tones")


def run(args: argparse.Namespace) -> int:
    """Draws the set; returns the exit status."""
    from imagier.tools.demo.openmoji import render_openmoji

    out = args.out if args.out is not None else Path("data", f"openmoji{args.size}")
    start = time.perf_counter()
    with show_progress(f"drawing emoji at {args.size} px") as update:
        made = render_openmoji(
            out, size_px=args.size, skin_tones=args.skin_tones, workers=args.workers, progress=update
        )
    left_out = ", ".join(f"{count} {reason}" for reason, count in made.left_out.items() if count)
    how = "already there" if made.is_reused else f"in {time.perf_counter() - start:.1f} s"
    print(f"{made.out}: {made.train} train + {made.val} val pairs, {how}; left out: {left_out or 'none'}")
    return 0
