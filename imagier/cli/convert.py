"""`imagier convert`: makes a checkpoint of one that the reference wrote."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("old", type=Path, metavar="OLD.pt", help="the checkpoint to read")
    parser.add_argument("new", type=Path, metavar="NEW.pt", help="the checkpoint to write")
    parser.add_argument("--config", type=Path, required=True, help="the experiment that it belongs to")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config"
    )
    parser.set_defaults(logdir=None, num_workers=None)


def run(args: argparse.Namespace) -> int:
    """Writes the new checkpoint; returns the exit status."""
    from imagier.run.conversion import convert

    return convert(args)
