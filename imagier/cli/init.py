"""`imagier init`: a folder to start in, with a commented config for a method."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from pathlib import Path

from imagier.cli.arguments import parse_writable_folder
from imagier.run import status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="a method, as spade, or an example; default: lists all")
    add(
        "folder",
        nargs="?",
        type=parse_writable_folder,
        default=Path(),
        metavar="FOLDER",
        help="where to write config, README.md and .gitignore (default: the current folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the files, or lists what there is; returns the exit status."""
    from imagier.tools.init_folder import find_template, init_folder

    if args.name is None:
        _print_templates()
        return status.DONE
    written, kept = init_folder(args.name, args.folder)
    for path in written:
        print(f"written: {path}")
    for path in kept:
        print(f"was there, and stays: {path}")
    print("next:")
    if args.folder.resolve() != Path.cwd():
        print(f"  cd {shlex.quote(str(args.folder))}")
    for command in find_template(args.name).commands:
        print(f"  {command}")
    return status.DONE


def _print_templates() -> None:
    from imagier.tools.init_folder import list_templates

    templates = list_templates().values()
    width = max(len(template.name) for template in templates)
    for is_example, heading in ((False, "for your own data:"), (True, "examples, with a command that makes the data:")):
        print(heading)
        for template in templates:
            if template.is_example == is_example:
                start, indent = f"  {template.name:<{width}}  ", " " * (width + 4)
                print(textwrap.fill(_shorten(template.title), 120, initial_indent=start, subsequent_indent=indent))
    print("to start with one of them: imagier init NAME FOLDER")


def _shorten(title: str) -> str:
    """The first sentence."""
    return title.replace(" et al. ", " et al.\0").partition(". ")[0].replace("\0", " ").removesuffix(".")
