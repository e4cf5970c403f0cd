"""`imagier data ...`: makes data sets, and looks at them."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

COMMANDS = {
    "build": "pack many files into one LMDB or into tar shards, or find optical flow",
    "check": "read a whole data set and report what is wrong with it",
    "preview": "show on a page what a batch looks like after augmentation",
    "index": "list the files of a folder that will be read from an object store",
    "vizdoom": "record a data set of videos in a game",
    "crafter": "record a data set of videos in a game that is seen from above",
    "openmoji": "draw the default data set: emoji and their line art",
    "openmoji-tones": "draw data sets without pairs: emoji of people, in many colors",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of `imagier data` to its parser."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        _import_command(name).add_arguments(sub)


def run(args: argparse.Namespace) -> int:
    """Runs the command that `args.data_command` names; returns the exit status."""
    return _import_command(args.data_command).run(args)


def _import_command(name: str) -> ModuleType:
    return importlib.import_module(f"imagier.cli.data.{name.replace('-', '_')}")
