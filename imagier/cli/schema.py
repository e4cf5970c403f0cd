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
    from imagier.errors import UserError

    text = json.dumps(json_schema(), indent=2)
    if args.out is None:
        print(text)
        return 0
    try:
        args.out.write_text(text + "\n")
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror}", where=f"--out {args.out}", code="unwritable-file"
        ) from error
    return 0
