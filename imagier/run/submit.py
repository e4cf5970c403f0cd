"""Queues a training on a cluster, where it continues by itself in job after job."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imagier.errors import UserError
from imagier.run.experiment import read_experiment
from imagier.run.options import RunOptions

MARGIN_S = 10
"""Seconds before its end at which Slurm signals a job. A run needs no signal: it knows when its job ends, saves before,
and has the job queued again."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a cluster must know of a job."""

    kind: str = "slurm"
    """slurm, or local: a process on this machine, for a try."""
    job_s: float = 4 * 3600.0
    """Length of a job, in seconds."""
    nodes: int = 1
    gpus: int = 1
    """GPUs of each machine, with a rank for each; 0: one rank."""
    cpus: int = 8
    """Cores for each rank."""
    mem_gb: int | None = None
    """Memory of each machine."""
    name: str = "imagier"
    """What the queue calls the job."""
    folder: Path = Path("logs/submit")
    """Where the job's output goes."""
    slurm: Mapping[str, str] = field(default_factory=dict)
    """Options of Slurm: partition, account, qos, constraint."""

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return self.nodes * max(self.gpus, 1)


@dataclass(frozen=True)
class QueuedJob:
    """A job that is queued."""

    job_id: str
    output: Path
    """The file that its output goes to."""


def submit(config: Path | None, options: RunOptions, cluster: Cluster, *, overrides: Sequence[str] = ()) -> QueuedJob:
    """Queues the training, once its config is known to be right. UserError if it is not, or if there is no cluster."""
    if options.logdir is None:
        raise UserError(
            "missing: a job that is queued again must find its run",
            where="logdir",
            advice="name its folder",
            code="missing-logdir",
        )
    read_experiment(config, options, overrides)
    job = _open_executor(cluster).submit(
        TrainJob(config, options, tuple(overrides), job_s=cluster.job_s, ranks=cluster.ranks)
    )
    return QueuedJob(str(job.job_id), Path(job.paths.stdout))


@dataclass(frozen=True)
class TrainJob:
    """What a job runs: a training, in every rank."""

    config: Path | None
    options: RunOptions
    overrides: tuple[str, ...]
    job_s: float
    """How long Slurm lets the job run, in seconds."""
    ranks: int

    def __call__(self) -> str:
        """Trains; returns the outcome. Errors as of `train`."""
        from submitit.helpers import TorchDistributedEnvironment

        from imagier.run.log_lines import print_logs, watch_outputs
        from imagier.run.training import train

        if self.ranks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        if "SLURM_JOB_ID" in os.environ:  # older versions of Slurm do not set the job's end
            os.environ.setdefault("SLURM_JOB_END_TIME", str(int(time.time() + self.job_s)))
        with print_logs(), watch_outputs(is_vital=False):
            return train(self.config, replace(self.options, owns_process=True), overrides=self.overrides).outcome


def _open_executor(cluster: Cluster) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            "submitit is not installed", where="imagier submit", advice="pip install imagier[slurm]", code="no-submitit"
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=cluster.folder / "%j", cluster=cluster.kind)
    except RuntimeError as error:
        where = f"cluster {cluster.kind}"
        advice = "is this machine one of the cluster's?"
        raise UserError(str(error), where=where, advice=advice, code="no-cluster") from error
    minutes = max(1, int(cluster.job_s // 60))
    executor.update_parameters(name=cluster.name, timeout_min=minutes, nodes=cluster.nodes, cpus_per_task=cluster.cpus)
    executor.update_parameters(gpus_per_node=cluster.gpus, tasks_per_node=max(cluster.gpus, 1))
    if cluster.mem_gb is not None:
        executor.update_parameters(mem_gb=cluster.mem_gb)
    if cluster.kind == "slurm":
        options = {f"slurm_{name}": value for name, value in cluster.slurm.items()}
        requeue = {"requeue": True}
        executor.update_parameters(slurm_signal_delay_s=MARGIN_S, slurm_additional_parameters=requeue, **options)
    return executor
