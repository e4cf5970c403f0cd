"""`imagier data ...`: makes data sets."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagier.cli.arguments import writable_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of `imagier data` to its parser."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    _add_openmoji(commands.add_parser("openmoji", help="draw the default data set: line art and picture of emoji"))
    _add_tones(commands.add_parser("openmoji-tones", help="draw sets without pairs: emoji of people, in many colours"))


def run(args: argparse.Namespace) -> int:
    """Runs the command that `args.data_command` names; returns the exit status."""
    return _COMMANDS[args.data_command](args)


def _add_openmoji(parser: argparse.ArgumentParser) -> None:
    _add_drawing(parser, "data/openmoji<PX>")
    parser.add_argument("--skin-tones", action="store_true", help="also draw the variants of skin tone")


def _add_tones(parser: argparse.ArgumentParser) -> None:
    _add_drawing(parser, "data/openmoji_tones<PX>")


def _add_drawing(parser: argparse.ArgumentParser, out: str) -> None:
    parser.add_argument("--size", type=int, default=64, metavar="PX", help="width and height of a picture (default 64)")
    parser.add_argument("--out", type=writable_folder, metavar="DIR", help=f"the folder to make (default {out})")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that draw (default: one a core, at most 8)")


def _openmoji(args: argparse.Namespace) -> int:
    from imagier.data.openmoji import render_openmoji

    out = args.out if args.out is not None else Path("data", f"openmoji{args.size}")
    start = time.perf_counter()
    with _progress(f"drawing emoji at {args.size} px") as progress:
        made = render_openmoji(
            out, size_px=args.size, skin_tones=args.skin_tones, workers=args.workers, progress=progress
        )
    left_out = ", ".join(f"{count} {reason}" for reason, count in made.left_out.items() if count)
    how = _how(made.already_there, start)
    print(f"{made.out}: {made.train} train + {made.val} val pairs, {how}; left out: {left_out or 'none'}")
    return 0


def _tones(args: argparse.Namespace) -> int:
    from imagier.data.openmoji_tones import render_tones

    out = args.out if args.out is not None else Path("data", f"openmoji_tones{args.size}")
    start = time.perf_counter()
    with _progress(f"drawing emoji in all colours at {args.size} px") as progress:
        made = render_tones(out, size_px=args.size, workers=args.workers, progress=progress)
    pictures = sum(made.counts.values())
    how = _how(made.already_there, start)
    print(f"{made.out}: {pictures} pictures of {made.train} train + {made.val} val emoji, {how}")
    return 0


def _how(already_there: bool, start: float) -> str:
    return "already there" if already_there else f"in {time.perf_counter() - start:.1f} s"


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, one plain line elsewhere; neither before the first emoji is drawn."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stdout.isatty():
        yield lambda done, total: print(f"{what}: {total} of them", flush=True) if done == 1 else None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # No thread of its own: the workers are forked, and forking with threads is what Python warns of.
    with Progress(*columns, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(what, total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True, refresh=done % 20 == 0 or done == total)

        yield show


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"openmoji": _openmoji, "openmoji-tones": _tones}
