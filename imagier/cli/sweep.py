"""`imagier sweep`: searches for the best values of a config's keys."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from imagier.cli.arguments import add_device, parse_positive, parse_seed, parse_writable_folder
from imagier.cli.tables import print_table
from imagier.run import status

if TYPE_CHECKING:
    from imagier.run.sweep_result import Row, SweepResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a sweep."""
    add = parser.add_argument
    add("config", type=Path, help="the experiment")
    add("--space", type=Path, required=True, metavar="FILE", help="a YAML of keys, each with the range that is tried")
    add("--logdir", type=parse_writable_folder, required=True, metavar="DIR", help="folder of the sweep, old or new")
    add("--trials", type=parse_positive, default=12, metavar="N", help="how many there are in the end (default 12)")
    add("--workers", type=parse_positive, default=1, metavar="N", help="trainings at a time (default 1)")
    add("--metric", metavar="NAME", help="a metric, or the tag of a loss (default: the config's first metric)")
    add(
        "--pruner", choices=("median", "asha", "none"), default="median", help="what ends trials early (default median)"
    )
    add("--seed", type=parse_seed, default=0, help="of the values that are tried (default 0)")
    add("--storage", metavar="URL", help="a database for the trials (default: a journal in the folder)")
    add_device(parser)
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Runs the trials, prints a table of all; returns the exit status."""
    from imagier.run.sweep import BEST, SweepOptions, sweep

    options = SweepOptions(
        space=args.space,
        logdir=args.logdir,
        trials=args.trials,
        workers=args.workers,
        metric=args.metric,
        pruner=args.pruner,
        seed=args.seed,
        storage=args.storage,
        device=args.device,
    )
    result = sweep(args.config, options, overrides=args.overrides)
    _print_result(result)
    if result.best is not None:
        print(f"best: {result.best.name}; to train with its config: imagier train {args.logdir / BEST} --logdir ...")
    if result.is_interrupted:
        print("interrupted; continue with the same command")
        return status.INTERRUPTED
    return status.DONE


def _print_result(result: SweepResult) -> None:
    """The best first, then those that are not complete."""
    sign = -1 if result.objective.higher_is_better else 1
    order = ("complete", "pruned", "open", "failed")
    rows = sorted(result.rows, key=lambda row: (order.index(row.state), sign * (row.value or 0.0)))
    keys = list(dict.fromkeys(key for row in rows for key in row.values))
    print_table([["trial", result.objective.name, "iteration", *keys, "state"], *(_format(row, keys) for row in rows)])


def _format(row: Row, keys: list[str]) -> list[str]:
    value = "-" if row.value is None else f"{row.value:.4g}"
    state = f"{row.state}: {row.why}" if row.why else row.state
    return [row.name, value, f"{row.step:,}", *(_format_value(row.values.get(key, "-")) for key in keys), state]


def _format_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
