"""`imagier data openmoji-tones`: draws data sets without pairs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from imagier.cli.arguments import add_drawing
from imagier.run.progress import show_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_drawing(parser, "data/openmoji_tones<PX>")


def run(args: argparse.Namespace) -> int:
    """Draws the sets; returns the exit status."""
    from imagier.tools.demo.openmoji_tones import render_tones

    out = args.out if args.out is not None else Path("data", f"openmoji_tones{args.size}")
    start = time.perf_counter()
    with show_progress(f"drawing emoji in all colors at {args.size} px") as update:
        made = render_tones(out, size_px=args.size, workers=args.workers, progress=update)
    images = sum(made.counts.values())
    how = "already there" if made.is_reused else f"in {time.perf_counter() - start:.1f} s"
    print(f"{made.out}: {images} images of {made.train} train + {made.val} val emoji, {how}")
    return 0
