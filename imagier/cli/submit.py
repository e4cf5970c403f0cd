"""`imagier submit`: queues a training on a cluster, where it continues by itself in job after job."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagier.cli import train
from imagier.run import status

_SLURM = ("partition", "account", "qos", "constraint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the cluster must know; everything after `--` are the flags of `imagier train`."""
    add = parser.add_argument
    parser.usage = "imagier submit [what the cluster must know] -- --config FILE --logdir DIR [flags of imagier train]"
    add("--cluster", choices=("slurm", "local"), default="slurm", help="local: a process on this machine, for a try")
    add(
        "--time", type=train.parse_duration, default=4 * 3600.0, metavar="TIME", help="length of a job: 90 (s), 45m, 4h"
    )
    add("--nodes", type=int, default=1, metavar="N", help="machines (default 1)")
    add("--gpus", type=int, default=1, metavar="N", help="GPUs of each machine, with a rank for each; 0: one rank")
    add("--cpus", type=int, default=8, metavar="N", help="cores for each rank (default 8)")
    add("--mem_gb", type=int, metavar="N", help="memory of each machine")
    add("--name", default="imagier", help="name of the job in the queue")
    add("--folder", type=Path, default=Path("logs/submit"), metavar="DIR", help="where the job's output goes")
    for name in _SLURM:
        add(f"--{name}", help=f"Slurm's {name}")
    add("train", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Queues the job, once its config is known to be right; returns the exit status."""
    from imagier.run.submit import Cluster, submit

    cluster = Cluster(
        kind=args.cluster,
        job_s=args.time,
        nodes=args.nodes,
        gpus=args.gpus,
        cpus=args.cpus,
        mem_gb=args.mem_gb,
        name=args.name,
        folder=args.folder,
        slurm={name: value for name, value in vars(args).items() if name in _SLURM and value is not None},
    )
    training = _parse_training(args.train[args.train[:1] == ["--"] :])
    job = submit(training.config, train.read_run_options(training), cluster, overrides=training.overrides)
    print(f"job {job.job_id} is queued; its output: {job.output}")
    return status.DONE


def _parse_training(words: list[str]) -> argparse.Namespace:
    """The flags of `imagier train`."""
    parser = argparse.ArgumentParser(prog="imagier submit ... --")
    train.add_arguments(parser)
    args = parser.parse_args(words)
    train.take_config(args)
    return args
