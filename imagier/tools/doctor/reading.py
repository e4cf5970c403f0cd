"""Reads all files of a data set once, in several processes, and notes what each is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from imagier.data.loading.faults import translate_worker_errors
from imagier.tools.doctor.file_stats import FileStats, look
from imagier.tools.doctor.file_table import FileTable

FILES_AT_ONCE = 16

Told = Callable[[int, int], None]
"""Called with (done, to do)."""

_Task = tuple[int, Sequence[int]]
"""The number of a column, and places in it."""


def read_all(
    tables: Sequence[FileTable], *, workers: int, told: Told, most: int | None = None, seconds: float | None = None
) -> None:
    """Enters a look at every file into its column; or at no more than `most` of each, for no longer than `seconds`.

    Those few are spread evenly over a column, and read in a fixed random order, so that what is read before the time
    is over comes from all of it. workers: processes; with one, this one reads. What is found does not depend on them.
    """
    tasks = _all(tables) if most is None else _some(tables, most)
    total = sum(len(places) for _, places in tasks)
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    done = 0
    for (number, places), looks in zip(tasks, in_parallel(_Reader(tables), tasks, workers)):
        for place, seen in zip(places, looks):
            tables[number].enter(place, seen)
            done += 1
            told(done, total)
        if time.monotonic() > deadline:
            break


def in_parallel(answers: Dataset, questions: Sequence[Any], workers: int) -> Iterator[Any]:
    """The answer to each question, in order; computed ahead, but never more than a few per process.

    RunError if a process dies.
    """
    with translate_worker_errors():
        yield from DataLoader(
            answers,
            batch_size=None,
            sampler=questions,
            num_workers=workers if workers > 1 else 0,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
        )


class _Reader(Dataset):
    """Looks at files. It holds what it needs of the columns alone: it may have to be sent to the processes."""

    def __init__(self, tables: Iterable[FileTable]) -> None:
        self.shelves = [(table.codec, table.items) for table in tables]

    def __getitem__(self, task: _Task) -> list[FileStats]:
        number, places = task
        codec, items = self.shelves[number]
        return [look(*items[place], codec) for place in places]


def _all(tables: Sequence[FileTable]) -> list[_Task]:
    return [
        (number, range(len(table))[at : at + FILES_AT_ONCE])
        for number, table in enumerate(tables)
        for at in range(0, len(table), FILES_AT_ONCE)
    ]


def _some(tables: Sequence[FileTable], most: int) -> list[_Task]:
    tasks = []
    for number, table in enumerate(tables):
        count = min(most, len(table))
        tasks += [(number, [i * len(table) // count]) for i in range(count)]
    return [tasks[i] for i in np.random.default_rng(0).permutation(len(tasks))]


def _as_it_is(answer: Any) -> Any:
    return answer


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
