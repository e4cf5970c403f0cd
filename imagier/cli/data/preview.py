"""`imagier data preview`: shows what the networks will see."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.cli.arguments import parse_positive, parse_seed, parse_writable_file
from imagier.run.options import TRAIN_SEED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="the YAML of the experiment")
    add("out", type=parse_writable_file, metavar="OUT.html", help="the page to write")
    add("--samples", type=parse_positive, default=6, metavar="N", help="samples to show (default %(default)s)")
    add("--draws", type=parse_positive, default=4, metavar="K", help="augmented versions of each (default %(default)s)")
    add("--seed", type=parse_seed, default=TRAIN_SEED, help="seed of the augmentations (default %(default)s)")
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Writes the page; returns the exit status."""
    from imagier.tools.doctor.preview_page import render_page
    from imagier.tools.doctor.splits import read_config, write_text

    config = read_config(args.config, args.overrides)
    text = render_page(config, title=args.config.stem, samples=args.samples, draws=args.draws, seed=args.seed)
    write_text(args.out, [text])
    print(f"{args.out}: samples as they are stored, and as the networks see them")
    return 0
