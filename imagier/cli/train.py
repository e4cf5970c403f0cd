"""`imagier train`: trains the networks of a config."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from imagier.cli.arguments import add_process, parse_seed, parse_writable_folder, read_process_options, take_config
from imagier.cli.imports import import_quickly
from imagier.run import status
from imagier.run.log_lines import watch_outputs
from imagier.run.options import TRAIN_SEED, RunOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags of the reference's train.py, and ours."""
    add = parser.add_argument
    add("--config", type=Path, help="the experiment; not needed if --logdir holds the config.yaml of a run")
    add(
        "--logdir",
        type=parse_writable_folder,
        metavar="DIR",
        help="folder of the run, old or new (logs/<time>_<config>)",
    )
    add("--checkpoint", type=Path, metavar="FILE", help="start from the weights of this checkpoint")
    add(
        "--resume",
        type=int,
        choices=(0, 1),
        nargs="?",
        const=1,
        metavar="0|1",
        help="1: continue the run that wrote the checkpoint; 0: take its weights only "
        "(default: 0 with --checkpoint, 1 for a run in --logdir)",
    )
    add("--seed", type=parse_seed, help=f"seed of everything random (default {TRAIN_SEED}, or that of the run)")
    add("--randomized_seed", action="store_true", help="draw the seed (0 to 10000), the same for all ranks")
    add_process(parser)
    add("--num_workers", type=int, metavar="N", help="processes that read data, per rank (default: data.num_workers)")
    add("--compile", "--use_jit", action="store_true", help="compile the networks: slow to start, faster to run")
    _add_time_limits(parser)
    add(
        "--debug",
        action="store_true",
        help="try everything in a few slow steps: training with anomaly detection, saving, images, continuing",
    )
    add("--dry-run", action="store_true", help="check config and data, print the whole config, and stop")
    add("--profile", action="store_true", help="measure some iterations; table and trace go to <logdir>/profile")
    _add_wandb(parser)
    add(
        "overrides",
        nargs="*",
        metavar="CONFIG section.key=value",
        help="the experiment, if not by --config; values that replace those of the config",
    )


def _add_time_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max_time", type=parse_duration, metavar="TIME", help="save and stop after so long: 90 (seconds), 45m, 3.5h")
    add(
        "--step_timeout",
        type=parse_duration,
        metavar="TIME",
        help="end the run, and print where it was, if an iteration takes longer (the first may take ten times as long)",
    )


def _add_wandb(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--wandb", action="store_true", help="log to Weights & Biases")
    add("--wandb_name", default="default", metavar="NAME", help="its project (default 'default')")
    add("--wandb_id", metavar="ID", help="its run (default: that of <logdir>/wandb_id.txt, or a new one)")


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit status."""
    take_config(args)
    options = read_run_options(args)
    if args.debug:
        from imagier.run.debug import debug

        return status.DONE if debug(args.config, options, overrides=args.overrides) else status.FAILED

    with import_quickly():
        from imagier.run.training import train

    # What a dry run prints is its result.
    with nullcontext() if args.dry_run else watch_outputs(is_vital=False):
        result = train(args.config, options, overrides=args.overrides)
    return status.choose_interrupted() if result.outcome == "interrupted" else status.DONE


def read_run_options(args: argparse.Namespace) -> RunOptions:
    """What the parsed flags ask of a run."""
    return RunOptions(
        logdir=args.logdir,
        checkpoint=args.checkpoint,
        resume=None if args.resume is None else args.resume == 1,
        seed=args.seed,
        randomized_seed=args.randomized_seed,
        **read_process_options(args),
        num_workers=args.num_workers,
        compile=args.compile,
        max_time_s=args.max_time,
        step_timeout_s=args.step_timeout,
        dry_run=args.dry_run,
        profile=args.profile,
        command=_format_command(sys.argv),
        wandb=args.wandb,
        wandb_project=args.wandb_name,
        wandb_id=args.wandb_id,
    )


def _format_command(words: Sequence[str]) -> str:
    """What was typed, as far as Python knows: the script is known by its path."""
    script = Path(words[0])
    start = {"imagier": "imagier", "__main__.py": "python -m imagier"}.get(
        script.name, f"python {shlex.quote(words[0])}"
    )
    return f"{start} {shlex.join(words[1:])}"


def parse_duration(text: str) -> float:
    """Seconds, from 90, 45m or 3.5h. ArgumentTypeError if it is none of these."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, or minutes as 45m, or hours as 3.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
