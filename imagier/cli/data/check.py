"""`imagier data check`: the doctor for data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.cli.arguments import writable_file
from imagier.run import status
from imagier.tools.doctor.limits import QUICK_FILES, QUICK_SECONDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="the YAML of the experiment")
    add("--html", type=writable_file, metavar="FILE", help="also write all that was found, with images, as a page")
    add("--json", type=writable_file, metavar="FILE", help="also write all that was found, with every file's name")
    add("--workers", type=int, metavar="N", help="processes that read (default: one a core, at most 16)")
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
