"""Arguments that several commands have, and the types of their values."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

END = 2**63
"""torch and the files of a run hold a seed as an integer of 64 bits with a sign."""


def add_device(parser: argparse.ArgumentParser) -> None:
    """The flag that names the device, as runtime.start takes it."""
    devices = ("auto", "cpu", "cuda", "mps")
    parser.add_argument("--device", choices=devices, default="auto", help="where to compute (default auto)")


def add_process(parser: argparse.ArgumentParser) -> None:
    """The flags that say what a process runs on, as runtime.start takes them."""
    add_device(parser)
    add = parser.add_argument
    add(
        "--local_rank",
        "--local-rank",
        type=int,
        metavar="N",
        help="this process's place on its machine; set by launchers (default: $LOCAL_RANK)",
    )
    add("--single_gpu", action="store_true", help="one process alone, whatever the launcher's environment says")


def process_options(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of RunOptions that the flags of `add_process` set, and that a command line has."""
    return {
        "device": args.device,
        "local_rank": args.local_rank,
        "single_process": args.single_gpu,
        "owns_process": True,
    }


def add_drawing(parser: argparse.ArgumentParser, out: str) -> None:
    """The flags of the commands that draw a data set. out: where it goes if nobody says so, for people."""
    parser.add_argument("--size", type=int, default=64, metavar="PX", help="width and height of an image (default 64)")
    parser.add_argument("--out", type=writable_folder, metavar="DIR", help=f"the folder to make (default {out})")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that draw (default: one a core, at most 8)")


def seed(text: str) -> int:
    """A seed. ArgumentTypeError unless it is a whole number from 0 on, below 2**63."""
    if not (text.isascii() and text.isdecimal() and int(text[:20]) < END):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to 2**63 - 1")
    return int(text)


def positive(text: str) -> int:
    """A count. ArgumentTypeError unless it is a whole number from 1 on."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 on")
    return int(text)


def folder(text: str) -> Path:
    """The path of a folder. ArgumentTypeError where a file is in its way, or where there can be no such path."""
    path = Path(text)
    there = _nearest(path)
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is a file; name a folder")
    return path


def writable_folder(text: str) -> Path:
    """The path of a folder that can be made, or written to. ArgumentTypeError where it cannot; nothing is made."""
    path = folder(text)
    there = _nearest(path)
    try:
        # Only a try tells: what a file system refuses, its permissions need not show. Other ranks try too, at the same
        # time: hence under a name of its own, and never the folder itself.
        Path(tempfile.mkdtemp(dir=there)).rmdir()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {there}: {error.strerror}; name another folder") from error
    return path


def writable_file(text: str) -> Path:
    """The path of a file that can be written, new or old. ArgumentTypeError where it cannot; nothing is made."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    writable_folder(str(path.parent))
    return path


def _nearest(path: Path) -> Path:
    """The first of a path and the folders around it that is there."""
    try:
        return next(part for part in (path, *path.parents) if part.exists())
    except OSError as error:  # a name that is too long, a folder that must not be looked into
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}; name another folder") from error
