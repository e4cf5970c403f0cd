"""`imagier schema`: a JSON Schema of configs, so that editors complete keys and underline mistakes."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("--out", type=Path, help="the file to write (default: standard output)")


def run(args: argparse.Namespace) -> int:
    """Writes the schema; returns the exit status."""
    import json

    from imagier.config.json_schema import json_schema

    text = json.dumps(json_schema(), indent=2)
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text + "\n")
    return 0
