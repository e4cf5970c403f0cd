"""Arguments that several commands have, and parsers of values."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from imagier.run.options import END_OF_SEEDS


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that names the device."""
    devices = ("auto", "cpu", "cuda", "mps")
    parser.add_argument("--device", choices=devices, default="auto", help="where to compute (default auto)")


def add_process(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the process: its device and its place among the ranks."""
    add_device(parser)
    add = parser.add_argument
    add(
        "--local_rank",
        "--local-rank",
        type=int,
        metavar="N",
        help="place of this process on its machine; set by launchers (default: $LOCAL_RANK)",
    )
    add("--single_gpu", action="store_true", help="run one process alone, whatever the environment of a launcher says")


def read_process_options(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of RunOptions that the flags of `add_process` set, and the one that holds for every command line."""
    return {
        "device": args.device,
        "local_rank": args.local_rank,
        "single_process": args.single_gpu,
        "owns_process": True,
    }


def take_config(args: argparse.Namespace) -> None:
    """Lets the config come first, by its position, before the overrides: `imagier train FILE`."""
    if args.config is None and args.overrides and "=" not in args.overrides[0]:
        args.config = Path(args.overrides.pop(0))


def add_drawing(parser: argparse.ArgumentParser, out: str) -> None:
    """Adds the flags of the commands that draw a data set. out: the default folder, for the help text."""
    parser.add_argument("--size", type=int, default=64, metavar="PX", help="width and height of an image (default 64)")
    parser.add_argument("--out", type=parse_writable_folder, metavar="DIR", help=f"the folder to make (default {out})")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that draw (default: one per core, at most 8)"
    )


def parse_seed(text: str) -> int:
    """A seed. ArgumentTypeError unless it is a whole number from 0 to 2**63 - 1."""
    if not (text.isascii() and text.isdecimal() and int(text[:20]) < END_OF_SEEDS):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to 2**63 - 1")
    return int(text)


def parse_positive(text: str) -> int:
    """A count. ArgumentTypeError unless it is a whole number greater than 0."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 on")
    return int(text)


def parse_folder(text: str) -> Path:
    """The path of a folder, existing or not. ArgumentTypeError if a file is in its way, or for an impossible path."""
    path = Path(text)
    there = _find_nearest(path)
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is a file; name a folder")
    return path


def parse_writable_folder(text: str) -> Path:
    """The path of a folder that can be made, or written to. ArgumentTypeError if it cannot. Nothing is made."""
    path = parse_folder(text)
    there = _find_nearest(path)
    try:
        # Only trying shows it: a file system may refuse what its permissions allow. Other ranks try at the same time,
        # hence a name of its own, and never the folder itself.
        Path(tempfile.mkdtemp(dir=there)).rmdir()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {there}: {error.strerror}; name another folder") from error
    return path


def parse_writable_file(text: str) -> Path:
    """The path of a file that can be written, new or old. ArgumentTypeError if it cannot. Nothing is made."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    parse_writable_folder(str(path.parent))
    return path


def _find_nearest(path: Path) -> Path:
    """The first of a path and the folders around it that exists."""
    try:
        return next(part for part in (path, *path.parents) if part.exists())
    except OSError as error:  # a name that is too long, a folder without permission to look into
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}; name another folder") from error
