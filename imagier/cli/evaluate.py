"""`imagier evaluate`: scores of the checkpoints of a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagier.cli.arguments import (
    add_process,
    parse_folder,
    parse_seed,
    parse_writable_file,
    read_process_options,
    take_config,
)
from imagier.cli.imports import import_quickly
from imagier.cli.tables import print_table
from imagier.run import status
from imagier.run.options import RunOptions

if TYPE_CHECKING:
    from imagier.run.scorecards import Scorecard

WEIGHTS: dict[str, Sequence[Literal["average", "regular"]]] = {
    "average": ("average",),
    "regular": ("regular",),
    "both": ("average", "regular"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the reference's evaluate.py, and ours."""
    add = parser.add_argument
    add("--config", type=Path, help="the experiment (default: the one stored with --logdir or --checkpoint)")
    logdir = "folder of a run; gets the cards, and shows the scores in its report.html"
    add("--logdir", type=parse_folder, metavar="DIR", help=logdir)
    add("--checkpoint", type=Path, metavar="FILE", help="the checkpoint to score (default: the latest one of --logdir)")
    add("--all", action="store_true", help="score all checkpoints of --logdir")
    add("--checkpoint_logdir", type=parse_folder, metavar="DIR", help="score all checkpoints of this folder")
    add("--start_iter", type=int, default=0, metavar="N", help="of all checkpoints: those from this iteration on")
    add("--end_iter", type=int, default=10**9, metavar="N", help="of all checkpoints: those up to this iteration")
    weights = "the generator's average, its weights in training (regular), or both (default %(default)s)"
    add("--weights", choices=list(WEIGHTS), default="average", help=weights)
    metrics = "types of metrics (default: those of the config, and fd,kd,prdc if none of these compares sets of images)"
    add("--metrics", metavar="A,B", help=metrics)
    features = "the network that makes features, or module:name of your own (default: each metric has its own)"
    add("--features", metavar="NAME", help=features)
    add("--out", type=parse_writable_file, metavar="FILE", help="write the card here, too; for a single checkpoint")
    seed = "draws random styles and the images of the floor (default %(default)s)"
    add("--seed", type=parse_seed, default=0, help=seed)
    add_process(parser)
    add("--num_workers", type=int, metavar="N", help="processes that read data (default: data.num_workers)")
    add("--wandb", action="store_true", help="log to Weights & Biases, into the run of --logdir")
    add("--wandb_name", default="default", metavar="PROJECT", help="project on Weights & Biases (default %(default)s)")
    add("--wandb_id", metavar="ID", help="run on Weights & Biases")
    add("--use_jit", action="store_true", help=argparse.SUPPRESS)
    add("--debug", action="store_true", help=argparse.SUPPRESS)
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Prints the scores and writes a card for each checkpoint; returns the exit status."""
    from imagier.errors import UserError

    with import_quickly():
        from imagier.run.build_scorer import name_metrics
        from imagier.run.progress import show_progress
        from imagier.run.scorecards import EvaluationRequest, measure_checkpoints

    take_config(args)
    folder = args.logdir if args.all else args.checkpoint_logdir
    if args.all and args.logdir is None:
        raise UserError("needs the folder of a run", where="all", advice="name it: --logdir", code="missing-logdir")
    if folder is not None and args.checkpoint is not None:
        what = "names one checkpoint, but all are asked for"
        raise UserError(what, where="checkpoint", advice="leave one of them out", code="one-and-all")
    if args.out is not None and (folder is not None or args.weights == "both"):
        what = "one file cannot hold several cards"
        raise UserError(what, where="out", advice="leave it out: the log folder holds them", code="several-cards")
    options = _read_options(args)
    names = [name.strip() for name in (args.metrics or "").split(",") if name.strip()]
    request = EvaluationRequest(
        metrics=name_metrics(names, args.features) if names else None,
        features=args.features,
        weights=WEIGHTS[args.weights],
        folder=folder,
        start_iter=args.start_iter,
        end_iter=args.end_iter,
    )
    measure_checkpoints(
        args.config,
        options,
        request,
        overrides=args.overrides,
        progress=show_progress,
        show=partial(_show, out=args.out),
    )
    return status.DONE


def _read_options(args: argparse.Namespace) -> RunOptions:
    logdir = args.logdir if args.logdir is not None or args.config is not None else args.checkpoint_logdir
    return RunOptions(
        logdir=logdir,
        checkpoint=args.checkpoint,
        seed=args.seed,
        num_workers=args.num_workers,
        wandb=args.wandb and not args.debug,
        wandb_project=args.wandb_name,
        wandb_id=args.wandb_id,
        **read_process_options(args),
    )


def _show(scorecard: Scorecard, out: str | None) -> None:
    """Prints a card, and where it is."""
    from imagier.tools.metrics import format_card

    card, path = scorecard.card, scorecard.path
    subject = card.subject
    print(f"{subject['checkpoint']}, {subject['weights']} weights, {card.protocol['num_samples']:,} held-out samples")
    print_table(format_card(card))
    for warning in card.warnings:
        print(f"warning: {warning}")
    if out is not None:
        card.write(Path(out))
    files = [str(name) for name in (path, out) if name is not None]
    print(f"protocol {card.protocol_hash}" + (f"; card: {', '.join(files)}" if files else ""), flush=True)
