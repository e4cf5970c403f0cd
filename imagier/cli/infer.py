"""`imagier infer`: writes an image for every input."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.cli.arguments import add_process, parse_folder, parse_seed, parse_writable_folder, read_process_options
from imagier.run import status
from imagier.run.options import STYLE_SEED, RunOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the reference's inference.py, and ours."""
    add = parser.add_argument
    add("--config", type=Path, help="the experiment; not needed if --logdir holds the config.yaml of a run")
    add("--checkpoint", type=Path, metavar="FILE", help="the weights (default: the latest checkpoint of --logdir)")
    add("--logdir", type=parse_folder, metavar="DIR", help="folder of a run")
    add("--output_dir", type=parse_writable_folder, required=True, metavar="DIR", help="where to write the images")
    add("--seed", type=parse_seed, default=STYLE_SEED, help="seed of random styles (default %(default)s)")
    add_process(parser)
    add("--num_workers", type=int, metavar="N", help="processes that read data (default: num_workers of the data)")
    add("--debug", action="store_true", help=argparse.SUPPRESS)
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Writes the images; returns the exit status."""
    from imagier.run.inference import generate

    options = RunOptions(
        logdir=args.logdir,
        checkpoint=args.checkpoint,
        seed=args.seed,
        num_workers=args.num_workers,
        **read_process_options(args),
    )
    generate(args.config, args.output_dir, options, overrides=args.overrides)
    return status.DONE
