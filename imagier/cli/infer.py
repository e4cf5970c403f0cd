"""`imagier infer`: writes a picture for every input."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.cli.paths import folder, writable_folder
from imagier.cli.seeds import seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the reference's inference.py, and ours."""
    add = parser.add_argument
    add("--config", type=Path, help="the experiment; may be left out if --logdir holds the config.yaml of a run")
    add("--checkpoint", type=Path, metavar="FILE", help="the weights (default: the latest checkpoint of --logdir)")
    add("--logdir", type=folder, metavar="DIR", help="folder of a run")
    add("--output_dir", type=writable_folder, required=True, metavar="DIR", help="where the pictures go")
    add("--seed", type=seed, default=0, help="seed of random styles (default 0)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute (default auto)")
    add("--local_rank", "--local-rank", type=int, metavar="N", help="set by launchers (default: $LOCAL_RANK)")
    add("--single_gpu", action="store_true", help="one process alone, whatever the launcher's environment says")
    add("--num_workers", type=int, metavar="N", help="processes that read data (default: num_workers of the data)")
    add("--debug", action="store_true", help=argparse.SUPPRESS)
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Writes the pictures; returns the exit status."""
    from imagier.cli.inference import infer

    return infer(args)
