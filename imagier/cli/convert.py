"""`imagier convert`: converts a checkpoint of the reference."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.run import status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("old", type=Path, metavar="OLD.pt", help="the checkpoint to read")
    add("new", type=Path, metavar="NEW.pt", help="the checkpoint to write")
    add("--config", type=Path, required=True, help="the experiment that it belongs to")
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Writes the new checkpoint; returns the exit status."""
    from imagier.run.conversion import convert

    converted = convert(args.old, args.new, args.config, overrides=args.overrides)
    print(f"{args.new}: epoch {converted.epoch}, iteration {converted.step:,}")
    return status.DONE
