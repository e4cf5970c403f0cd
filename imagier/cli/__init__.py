"""The command line: `imagier train | submit | verify-resume | infer | convert | data | explain | schema`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from imagier.run import status

COMMANDS = {
    "train": "train the networks of a config",
    "submit": "queue a training on a cluster",
    "verify-resume": "prove that a run resumes exactly where it was stopped",
    "infer": "write an image for every input",
    "convert": "convert a checkpoint of the reference",
    "data": "build, check and preview data sets",
    "explain": "say what a key of a config is for, and its value",
    "schema": "write a JSON Schema of configs, for editors",
}


def main(argv: Sequence[str] | None = None, program: str = "imagier") -> int:
    """Runs a command line; returns the exit status (status.py). Mistakes of the user go to stderr, one line each."""
    argv = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog=program, description="Trains image generators.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    module = None
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:  # the others need not be imported to be listed
            module = importlib.import_module(f"imagier.cli.{name.replace('-', '_')}")
            module.add_arguments(sub)
    args, rest = parser.parse_known_args(argv)
    assert module is not None
    # argparse takes positional words from one place only; overrides may stand anywhere between the flags.
    overrides = vars(args).get("overrides")
    if rest and (overrides is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if overrides is not None:
        overrides += rest

    from imagier.cli.flags import name_flags
    from imagier.errors import RunError, UserError
    from imagier.run.log_lines import print_logs

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a character shows its number
            stream.reconfigure(errors="backslashreplace")
    try:
        with print_logs(), _import_from_folder():
            return module.run(args)
    except UserError as error:
        print(name_flags(error), file=sys.stderr)
        return status.USER_ERROR
    except RunError as error:
        print(error, file=sys.stderr)
        return status.FAILED
    except KeyboardInterrupt:
        return status.KILLED


@contextmanager
def _import_from_folder() -> Iterator[None]:
    """While this is open, `type: my_lab.nets` in a config names a module of the current folder."""
    if "" in sys.path:
        yield
        return
    sys.path.append("")
    try:
        yield
    finally:
        sys.path.remove("")


def run_script(command: str) -> int:
    """The command line of one of the scripts beside the package (`python train.py ...`)."""
    return main([command, *sys.argv[1:]])
