"""`imagier tune`: what makes a training of a config fast on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from imagier.cli.arguments import add_device, parse_writable_file
from imagier.cli.tables import print_table
from imagier.run import status

if TYPE_CHECKING:
    from imagier.run.tuning import Row, TuneResult

HEADINGS = ["", "images/s", "of the best before", "memory", "losses", "gradients", "first [s]", ""]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("config", type=Path, help="the experiment")
    add("--minutes", type=float, default=3.0, metavar="N", help="about how long it may take (default %(default)g)")
    add(
        "--write", type=parse_writable_file, metavar="FILE", help="write the config with the keys that win to this file"
    )
    add("--overwrite", action="store_true", help="--write may replace a file")
    add_device(parser)
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Prints a table and the keys that win, writes them; returns the exit status."""
    from imagier.run.options import RunOptions
    from imagier.run.tuning import TIME_IS_OVER, check_target, tune, write_tuned

    if args.write is not None:
        check_target(args.config, args.overrides, args.write, overwrite=args.overwrite)
    options = RunOptions(device=args.device)
    result = tune(args.config, options, overrides=args.overrides, minutes=args.minutes)
    print_table([HEADINGS, *map(_format_row, result.rows)])
    print("losses, gradients: how far those of the first iteration are from fp32, relatively")
    for skipped in result.skipped:
        print(f"not tried: {skipped.name}: {skipped.why}")
    if any(skipped.why == TIME_IS_OVER for skipped in result.skipped):
        print("for the rest, give it more --minutes")
    _print_winners(result)
    if args.write is not None:
        overrides = [*args.overrides, *result.overrides]
        write_tuned(args.config, overrides, args.write, overwrite=args.overwrite)
        print(f"written: {args.write}")
    return status.DONE


def _format_row(row: Row) -> list[str]:
    return [
        row.name,
        f"{row.rate:.3g}",
        "" if row.ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(*row.ratio),
        f"{row.peak_bytes / 2**20:,.0f} MiB",
        *("-" if each is None else f"{each:.0e}" if each else "0" for each in (row.losses, row.gradients)),
        f"{row.first_s:.1f}",
        row.verdict,
    ]


def _print_winners(result: TuneResult) -> None:
    from imagier.config.load import dump, load_mapping

    for row in result.rows:
        if row.verdict == "offered" and row.ratio is not None and row.ratio[1] > 1:
            print(f"offered: {row.name}: {row.ratio[0]:.2f} times as fast, but it changes what is trained")
    if result.overrides:
        print("faster, and kept:")
        print(dump(load_mapping({}, result.overrides).tree), end="")
    if result.compile:
        print("faster, and kept: imagier train --compile")
    if not (result.overrides or result.compile):
        print("nothing that was tried is faster than the config as it is")
