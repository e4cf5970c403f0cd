"""The command line: `imagier COMMAND ...`; COMMANDS says which there are."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import imagier
from imagier.cli.parser import Parser
from imagier.run import status
from imagier.run.log_lines import watch_outputs
from imagier.train.disk import describe_error

COMMANDS = {
    "init": "make a folder to start in, with a config for a method",
    "train": "train the networks of a config",
    "submit": "queue a training on a cluster",
    "verify-resume": "prove that a run resumes exactly where it was stopped",
    "tune": "find out what makes a training fast on this machine",
    "sweep": "search for the best values of a config's keys",
    "infer": "write an image for every input",
    "export": "write a trained generator for other programs",
    "evaluate": "score checkpoints of a run on its held-out set",
    "metrics": "measure how far generated images are from real ones",
    "demo": "try a generator in a browser: a page or a Gradio app",
    "convert": "convert a checkpoint of the reference",
    "data": "build, check and preview data sets",
    "explain": "say what a key of a config is for, and its value",
    "schema": "write a JSON Schema of configs, for editors",
}


def main(argv: Sequence[str] | None = None, program: str = "imagier") -> int:
    """Runs a command line; returns the exit status (status.py). Mistakes of the user go to stderr, one line each."""
    with watch_outputs(is_vital=True) as stdout:
        try:
            try:
                return _run(list(sys.argv[1:] if argv is None else argv), program)
            finally:
                sys.stdout.flush()  # here and not at the end of Python, where nobody could handle the error
        except BrokenPipeError:  # whoever was reading along has seen enough, as `head -1` has
            return status.BROKEN_PIPE
        except OSError as error:
            if error is not stdout.error:
                raise
            print(f"stdout cannot be written to: {describe_error(error)}", file=sys.stderr)
            return status.FAILED


def _run(argv: list[str], program: str) -> int:
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser, commands = build_parser([chosen] if chosen in COMMANDS else [], program)
    args, rest = parser.parse_known_args(argv)
    # argparse takes positional words from one place only; overrides may stand anywhere between the flags.
    overrides = vars(args).get("overrides")
    if rest and (overrides is None or any(word.startswith("-") for word in rest)):
        commands[args.command].error(f"unrecognized arguments: {' '.join(rest)}")
    if overrides is not None:
        overrides += rest

    from imagier.cli.flags import name_flags
    from imagier.errors import RunError, UserError
    from imagier.run.log_lines import print_logs

    try:
        with print_logs(), _import_from_folder():
            return _import_command(args.command).run(args)
    except UserError as error:
        print(name_flags(error), file=sys.stderr)
        return status.USER_ERROR
    except RunError as error:
        print(error, file=sys.stderr)
        return status.FAILED
    except KeyboardInterrupt:
        return status.KILLED


def build_parser(wanted: Iterable[str] = COMMANDS, program: str = "imagier") -> tuple[Parser, dict[str, Parser]]:
    """The parser of command lines, and those of the commands, by name.

    wanted: the commands whose flags it knows; the others need not be imported to be listed.
    """
    parser = Parser(prog=program, description="Trains image generators.")
    parser.add_argument("--version", action="version", version=f"imagier {imagier.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    found = {}
    for name, text in COMMANDS.items():
        found[name] = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in wanted:
            _import_command(name).add_arguments(found[name])
    return parser, found


def get_parser() -> argparse.ArgumentParser:
    """The parser that knows every command, for shell completion (`python -m shtab imagier.cli.get_parser`)."""
    return build_parser()[0]


def _import_command(name: str) -> ModuleType:
    return importlib.import_module(f"imagier.cli.{name.replace('-', '_')}")


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
