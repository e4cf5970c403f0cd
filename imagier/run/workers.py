"""How many processes read data."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from typing import TYPE_CHECKING

from imagier.train.launcher import count_local_ranks

if TYPE_CHECKING:
    from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

MOST = 8
"""More read no faster than a GPU trains, and each needs memory."""


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def choose_workers(asked: int | None, runtime: Runtime, *, batches: int | None = None) -> int:
    """The number of processes of a rank that read data: as many as asked for, whatever the machine has.

    None: one per core of this rank, up to `MOST`; on the CPU one core less, because the networks need it. A set of a
    single batch is read without. So is all data under `spawn` (Windows, macOS), where each process would start Python
    and import torch anew. batches: those of a set that is read once.
    """
    if asked is not None:
        return asked
    if multiprocessing.get_start_method() == "spawn" or batches == 1:
        return 0
    spare = count_cores() // count_local_ranks(runtime.world) - (runtime.device.type == "cpu")
    return max(0, min(spare, MOST, MOST if batches is None else batches))


def warn_of_many(asked: int | None, runtime: Runtime) -> None:
    """Logs a line if more processes are asked for than there are cores."""
    ranks, cores = count_local_ranks(runtime.world), count_cores()
    if asked is not None and asked > 1 and asked * ranks > cores:
        processes = f"{asked} processes" if ranks == 1 else f"{asked} processes on each of {ranks} ranks"
        logger.warning(f"data.num_workers: {processes} read data, but there are {cores} cores; fewer may be faster")
