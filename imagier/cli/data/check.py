"""`imagier data check`: examines a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.cli.arguments import parse_writable_file
from imagier.run import status
from imagier.tools.doctor.limits import QUICK_FILES, QUICK_SECONDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="the YAML of the experiment")
    add(
        "--html",
        type=parse_writable_file,
        metavar="FILE",
        help="also write everything that was found, with images, as a page",
    )
    add(
        "--json",
        type=parse_writable_file,
        metavar="FILE",
        help="also write everything that was found, with the name of every file",
    )
    add("--workers", type=int, metavar="N", help="processes that read (default: one per core, at most 16)")
    add("--quick", action="store_true", help=f"read up to {QUICK_FILES} files of a type, for {QUICK_SECONDS:g} seconds")
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Examines the set; returns the exit status: 1 where a run would stop."""
    from imagier.tools.doctor.examination import examine

    would_stop = examine(
        args.config,
        args.overrides,
        html=args.html,
        json=args.json,
        workers=args.workers,
        is_quick=args.quick,
    )
    return status.FAILED if would_stop else status.DONE
