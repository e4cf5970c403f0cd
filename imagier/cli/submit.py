"""`imagier submit`: queues a training on a cluster, where it continues by itself in job after job."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from imagier.cli import train as training_command
from imagier.cli.train import duration
from imagier.errors import UserError
from imagier.run import status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the cluster must know; all that follows `--` are the flags of `imagier train`."""
    add = parser.add_argument
    parser.usage = "imagier submit [what the cluster must know] -- --config FILE --logdir DIR [flags of imagier train]"
    add("--cluster", choices=("slurm", "local"), default="slurm", help="local: a process on this machine, for a try")
    add("--time", type=duration, default=4 * 3600.0, metavar="TIME", help="length of a job: 90 (seconds), 45m, 4h")
    add("--nodes", type=int, default=1, metavar="N", help="machines (default 1)")
    add("--gpus", type=int, default=1, metavar="N", help="GPUs of each machine, with a rank for each; 0: one rank")
    add("--cpus", type=int, default=8, metavar="N", help="cores for each rank (default 8)")
    add("--mem_gb", type=int, metavar="N", help="memory of each machine")
    add("--name", default="imagier", help="what the queue calls the job")
    add("--folder", type=Path, default=Path("logs/submit"), metavar="DIR", help="where the job's output goes")
    for name in ("partition", "account", "qos", "constraint"):
        add(f"--{name}", help=f"Slurm's {name}")
    add("train", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Queues the job, once its config is known to be right; returns the exit status."""
    words = checked(args.train[args.train[:1] == ["--"] :])
    job = _executor(args).submit(TrainJob(words, job_s=args.time, ranks=args.nodes * max(args.gpus, 1)))
    print(f"job {job.job_id} is queued; its output: {job.paths.stdout}")
    return status.DONE


def checked(words: list[str]) -> list[str]:
    """The flags of `imagier train`, if these are right and their config too. UserError or SystemExit if not."""
    parser = argparse.ArgumentParser(prog="imagier submit ... --")
    training_command.add_arguments(parser)
    args = parser.parse_args(words)
    if args.logdir is None:
        raise UserError(
            "--logdir is missing: a job that is queued again must find its run", advice="name the folder of it"
        )

    from imagier.run.training import read_config

    read_config(args)
    return words


class TrainJob:
    """What a job runs: `imagier train` in every rank."""

    def __init__(self, words: list[str], *, job_s: float, ranks: int) -> None:
        """job_s: how long Slurm lets the job run, in seconds."""
        self.words = words
        self.job_s = job_s
        self.ranks = ranks

    def __call__(self) -> int:
        """Trains; RuntimeError if that failed."""
        from submitit.helpers import TorchDistributedEnvironment

        from imagier.cli import main

        if self.ranks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        if "SLURM_JOB_ID" in os.environ:  # older versions of Slurm do not tell when the job ends
            os.environ.setdefault("SLURM_JOB_END_TIME", str(int(time.time() + self.job_s)))
        ended_with = main(["train", *self.words])
        if ended_with not in (status.DONE, status.INTERRUPTED):
            raise RuntimeError(f"imagier train ended with status {ended_with}")
        return ended_with


def _executor(args: argparse.Namespace) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError("imagier submit needs submitit: pip install imagier[slurm]") from error
    try:
        executor = submitit.AutoExecutor(folder=args.folder / "%j", cluster=args.cluster)
    except RuntimeError as error:
        raise UserError(f"--cluster {args.cluster}: {error}", advice="is this machine one of the cluster's?") from error
    minutes = max(1, int(args.time // 60))
    executor.update_parameters(name=args.name, timeout_min=minutes, nodes=args.nodes, cpus_per_task=args.cpus)
    executor.update_parameters(gpus_per_node=args.gpus, tasks_per_node=max(args.gpus, 1))
    if args.mem_gb is not None:
        executor.update_parameters(mem_gb=args.mem_gb)
    if args.cluster == "slurm":
        names = ("partition", "account", "qos", "constraint")
        chosen = {f"slurm_{name}": vars(args)[name] for name in names if vars(args)[name] is not None}
        # Nobody's signal is needed: a run knows when its job ends, saves before, and has the job queued again.
        executor.update_parameters(slurm_signal_delay_s=10, slurm_additional_parameters={"requeue": True}, **chosen)
    return executor
