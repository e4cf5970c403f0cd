"""Reads files of many samples at once, within one process: for stores that answer late."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch.utils.data

from imagier.data.dataset import Key
from imagier.data.loading.faults import Guarded, Read
from imagier.data.sources.compute_lock import ComputeLock
from imagier.data.sources.remote import MOST_CONNECTIONS

THREADS = MOST_CONNECTIONS
"""Samples that a process makes at once. It gets as many files a second, divided by the seconds that one takes (Little's
law): 1,280 of 50 ms each."""

MOST_BYTES = 64 * 2**20
"""Of the samples that are made ahead of their batches in a process."""


@dataclass(frozen=True)
class BatchRequest:
    """The keys of a batch, and those that the same process will soon be asked for."""

    keys: Sequence[Key]
    ahead: Sequence[Key]


@dataclass(frozen=True)
class PrefetchSampler:
    """The keys of batches, each with the next ones that the same worker gets: torch deals them out in turn."""

    batches: Iterable[list[Key]]
    num_workers: int

    def __iter__(self) -> Iterator[BatchRequest]:
        """Without workers nothing is read ahead: only a batch's own files are waited for at once."""
        batches, window = iter(self.batches), deque[list[Key]]()
        while True:
            while self._is_short(window) and (batch := next(batches, None)) is not None:
                window.append(batch)
            if not window:
                return
            ahead = [key for batch in list(window)[self.num_workers :: self.num_workers or 1] for key in batch]
            keys = window.popleft()
            yield BatchRequest(keys, ahead[:THREADS] if self.num_workers else ())

    def _is_short(self, window: Sequence[list[Key]]) -> bool:
        if not window:
            return True
        later = -(-THREADS // max(1, len(window[0])))
        return len(window) <= later * self.num_workers


class ReadAhead(torch.utils.data.Dataset):
    """Samples by batches, made by threads that wait for files together and compute in turn.

    A sample depends on its key alone, so it matters neither who makes it nor when; what is wrong with it shows when it
    is asked for.
    """

    def __init__(self, guarded: Guarded, compute_lock: ComputeLock) -> None:
        self.guarded = guarded
        self.compute_lock = compute_lock
        self._lock = threading.Lock()
        self._made: dict[Key, Future[Read]] = {}
        self._waiting: deque[Key] = deque()
        self._threads = 0
        self._most_ahead = 0
        """So many samples; none before it is known how large they are."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadAhead, (self.guarded, self.compute_lock)

    def __getitems__(self, request: BatchRequest) -> list[Read]:
        """The samples of a batch, in order; those ahead are begun. torch calls it."""
        wanted = dict.fromkeys([*request.keys, *request.ahead[: self._most_ahead]])
        with self._lock:
            self._made = {key: made for key, made in self._made.items() if key in wanted}
            new = [key for key in wanted if key not in self._made]
            self._made |= {key: Future() for key in new}
            self._waiting.extend(new)
            idle = min(len(self._waiting), THREADS - self._threads)
            self._threads += idle
            mine = [self._made[key] for key in request.keys]
        for _ in range(idle):
            threading.Thread(target=self._work, name="read ahead", daemon=True).start()
        reads = [made.result() for made in mine]
        with self._lock:  # or it would hold them until it is asked again
            self._made = {key: made for key, made in self._made.items() if made not in mine}
        for sample in (read.sample for read in reads if read.sample is not None):
            size = sum(array.nbytes for array in sample.arrays.values())
            self._most_ahead = min(THREADS, MOST_BYTES // max(1, size))
        return reads

    def _work(self) -> None:
        """Makes samples until none is waited for: no thread is left when a run ends."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                key = self._waiting.popleft()
                made = self._made.get(key)
            if made is None:  # nobody asks for it any more
                continue
            with _Delivery(made):
                with self.compute_lock.hold():
                    read = self.guarded[key]
                made.set_result(read)


class _Delivery(AbstractContextManager[None]):
    """Hands an exception of a thread to whoever waits for its result, and there it is raised."""

    def __init__(self, made: Future[Read]) -> None:
        self.made = made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self.made.set_exception(error)
        return True
