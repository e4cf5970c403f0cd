"""`imagier infer`: writes an image for every input, or videos."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from imagier.cli.arguments import (
    add_process,
    parse_folder,
    parse_positive,
    parse_seed,
    parse_writable_folder,
    read_process_options,
    take_config,
)
from imagier.cli.imports import import_quickly
from imagier.run import status
from imagier.run.options import STYLE_SEED, RunOptions

FORMATS = ("png", "jpg", "webp", "tiff")

_OVERRIDE = re.compile(r"\w+(\.\w+)*\.\w+=|max_\w+=|pretrained_weight=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the reference's inference.py, and ours."""
    add = parser.add_argument
    add("--config", type=Path, help="the experiment; not needed with the folder of a run, or a checkpoint in one")
    add("--checkpoint", type=Path, metavar="FILE", help="the weights (default: the latest of --logdir); hub:USER/NAME")
    add("--logdir", type=parse_folder, metavar="DIR", help="folder of a run")
    add(
        "--input",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="files, or folders of files, to make images of (default: the test set of the config); for several input "
        "types a folder that has one for each, or TYPE=DIR for each; for videos a folder that has one for each type",
    )
    add(
        "--output_dir",
        "--output",
        type=parse_writable_folder,
        required=True,
        metavar="DIR",
        help="where to write the images",
    )
    _add_image_arguments(parser)
    add("--side_by_side", action="store_true", help="of videos, also write input, result and truth side by side")
    add("--fps", type=float, metavar="N", help="of videos, frames in a second (default 15)")
    add("--seed", type=parse_seed, default=STYLE_SEED, help="seed of random styles (default %(default)s)")
    add_process(parser)
    add("--num_workers", type=int, metavar="N", help="processes that read data (default: num_workers of the data)")
    add("--debug", action="store_true", help=argparse.SUPPRESS)
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def _add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """How images are painted and stored."""
    add = parser.add_argument
    add("--format", choices=FORMATS, help="of the images (default: png with --input, else jpg); jpg alone loses detail")
    add("--quality", type=parse_positive, metavar="Q", help="of jpg (default 99) or webp (default: lossless), 1 to 100")
    add("--bits", type=int, choices=(8, 16), default=8, help="of a channel of png or tiff (default %(default)s)")
    add("--alpha", action="store_true", help="give images the alpha of their input")
    add("--style", nargs="+", action="extend", metavar="PATH", help="images, or folders of them, to take the style of")
    add("--num_styles", type=parse_positive, metavar="K", help="paint every input in so many random styles")
    add("--full_size", action="store_true", help="paint at the size of the input, not at the scale of the training")
    add(
        "--tile",
        nargs=2,
        type=parse_positive,
        metavar=("H", "W"),
        help="as --full_size, but in tiles of that height and width, for images larger than memory",
    )
    add("--overlap", type=int, metavar="PX", help="of neighboring tiles (default: a quarter of their smaller side)")


def run(args: argparse.Namespace) -> int:
    """Writes the images; returns the exit status."""
    with import_quickly():
        from imagier.run.bundle.hub import find_local
        from imagier.run.generation import generate

    take_config(args)
    inputs, overrides = _split_overrides(args.input)
    styles, more = _split_overrides(args.style)
    options = RunOptions(
        logdir=args.logdir,
        checkpoint=None if args.checkpoint is None else find_local(args.checkpoint),
        seed=args.seed,
        num_workers=args.num_workers,
        **read_process_options(args),
    )
    generate(
        args.config,
        args.output_dir,
        options,
        inputs=inputs,
        styles=styles or (),
        num_styles=args.num_styles,
        format=args.format,
        quality=args.quality,
        bits=args.bits,
        alpha=args.alpha,
        full_size=args.full_size,
        tile=None if args.tile is None else (args.tile[0], args.tile[1]),
        overlap=args.overlap,
        side_by_side=args.side_by_side,
        fps=args.fps,
        overrides=[*args.overrides, *overrides, *more],
    )
    return status.DONE


def _split_overrides(words: Sequence[str] | None) -> tuple[list[str] | None, list[str]]:
    """Paths, and overrides of the config, which argparse takes for more of them where they come right behind."""
    if words is None:
        return None, []
    overrides = [word for word in words if _OVERRIDE.match(word) and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides
