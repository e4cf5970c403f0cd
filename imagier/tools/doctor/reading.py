"""Reads all files of a data set once, in several processes, and records their statistics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from imagier.data.loading.faults import translate_worker_errors
from imagier.data.loading.start_methods import start_processes
from imagier.run.progress import Update
from imagier.tools.doctor.file_stats import FileStats, read_stats
from imagier.tools.doctor.file_table import FileTable

FILES_AT_ONCE = 16

_Task = tuple[int, Sequence[int]]
"""The number of a table, and indices in it."""


def read_all(
    tables: Sequence[FileTable], *, workers: int, update: Update, most: int | None = None, seconds: float | None = None
) -> None:
    """Adds the statistics of every file to its table; or of at most `most` per table, for at most `seconds`.

    The limited selection is spread evenly over each table and read in a fixed random order, so that an early stop still
    covers the whole table. workers: processes; with 0 or 1, this process reads. The result does not depend on them.
    """
    tasks = _list_all(tables) if most is None else _list_some(tables, most)
    total = sum(len(indices) for _, indices in tasks)
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    done = 0
    for (number, indices), stats in zip(tasks, map_in_parallel(_StatsReader(tables), tasks, workers)):
        for index, one in zip(indices, stats):
            tables[number].add(index, one)
            done += 1
            update(done, total)
        if time.monotonic() > deadline:
            break


def map_in_parallel(function: Dataset, items: Sequence[Any], workers: int) -> Iterator[Any]:
    """`function[item]` for each item, in order, computed a few items ahead per process. RunError if a process dies."""
    loader = DataLoader(
        function,
        batch_size=None,
        sampler=items,
        num_workers=workers if workers > 1 else 0,
        collate_fn=_return_unchanged,
        worker_init_fn=_start_worker,
    )
    with translate_worker_errors():
        with start_processes([function]):
            results = iter(loader)
        yield from results


class _StatsReader(Dataset):
    """Reads files. It holds only what it needs of the tables, since it is pickled for spawned workers."""

    def __init__(self, tables: Iterable[FileTable]) -> None:
        self.tables = [(table.codec, table.items) for table in tables]

    def __getitem__(self, task: _Task) -> list[FileStats]:
        number, indices = task
        codec, items = self.tables[number]
        return [read_stats(*items[index], codec) for index in indices]


def _list_all(tables: Sequence[FileTable]) -> list[_Task]:
    return [
        (number, range(len(table))[at : at + FILES_AT_ONCE])
        for number, table in enumerate(tables)
        for at in range(0, len(table), FILES_AT_ONCE)
    ]


def _list_some(tables: Sequence[FileTable], most: int) -> list[_Task]:
    tasks = []
    for number, table in enumerate(tables):
        count = min(most, len(table))
        tasks += [(number, [i * len(table) // count]) for i in range(count)]
    return [tasks[i] for i in np.random.default_rng(0).permutation(len(tasks))]


def _return_unchanged(result: Any) -> Any:
    return result


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
