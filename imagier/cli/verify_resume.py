"""`imagier verify-resume`: proves that a resumed run is the same as one that was never stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.cli.arguments import add_device, parse_seed, parse_writable_folder
from imagier.run import status
from imagier.run.options import TRAIN_SEED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("config", type=Path, help="the experiment")
    add("--steps", type=int, default=12, metavar="N", help="iterations of each run (default 12, at least 6)")
    add("--ranks", type=int, default=1, metavar="N", help="train in this many processes, started by torchrun")
    add_device(parser)
    add("--seed", type=parse_seed, default=TRAIN_SEED, help="seed of everything random (default %(default)s)")
    add("--folder", type=parse_writable_folder, metavar="DIR", help="keep the runs here (default: they are deleted)")
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Trains, interrupts, compares; returns 0 if everything is the same bit for bit, 1 if not."""
    from imagier.run.verify_resume import ResumeCheck

    check = ResumeCheck(
        config=args.config,
        steps=args.steps,
        seed=args.seed,
        ranks=args.ranks,
        device=args.device,
        overrides=args.overrides,
    )
    return status.DONE if check.run(args.folder) else status.FAILED
