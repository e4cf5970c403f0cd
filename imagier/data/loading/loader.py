"""Batches from a data set: shuffled, sharded over ranks, and resumable at any sample."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from imagier.data.dataset import Dataset, Key
from imagier.data.loading.collate import FindPresent, Loaded, collate, get_forms
from imagier.data.loading.faults import (
    TRIES,
    Guarded,
    OnError,
    Read,
    free_frames,
    too_many_bad_samples,
    translate_worker_errors,
)
from imagier.data.loading.order import plan, share, shuffle_in_blocks, shuffle_indices
from imagier.data.loading.read_ahead import PrefetchSampler, ReadAhead
from imagier.data.loading.start_methods import mute_advice, start_processes
from imagier.errors import RunError
from imagier.recipe import Batch, Position

logger = logging.getLogger(__name__)

PARENT_CHECK_S = 2.0
"""Seconds between two looks of a worker at whether its run is still there."""

_DRAWS = 2**32
"""The epoch in whose order samples are drawn: no run gets there."""

T = TypeVar("T")

Arrived = Callable[[], dict[str, Tensor]]
"""Makes the device wait for the end of a copy; returns what was copied."""

Copier = Callable[[Mapping[str, Tensor]], Arrived]
"""Begins to copy tensors to a device, which goes on with its work meanwhile."""


class Loader:
    """Serves a data set to one of `world` ranks, on its device.

    The order of samples is a function of (seed, epoch); neither workers nor ranks change it: the batches of all ranks,
    side by side, are those of a single process with a `world` times larger batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        device: torch.device,
        finish: Callable[[Batch], Batch],
        seed: int = 0,
        shuffle: bool = False,
        blocks: Sequence[int] | None = None,
        on_error: OnError = OnError.RAISE,
        num_workers: int = 0,
        persistent_workers: bool = False,
        pin_memory: bool = False,
        copier: Copier | None = None,
        find_present: FindPresent | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """batch_size: samples per rank. finish: what happens to a batch once it is on the device (Expander).

        blocks: lengths of runs of samples that lie together, to be kept so. With `shuffle` (training), `stream` mixes a
        few at a time; without, `once` gives a rank whole ones. copier: copies batches to the device ahead of time,
        where it can. find_present: what a worker finds out about the label; batches have it as `label_present`, on the
        CPU. A sample that is skipped is logged the first time.
        """
        self.dataset = dataset
        self.batch_size = batch_size
        self.device = device
        self.finish = finish
        self.seed = seed
        self.shuffle = shuffle
        self.blocks = blocks
        self.on_error = on_error
        self.num_workers = num_workers
        self.persistent_workers = persistent_workers and num_workers > 0
        self.pin_memory = pin_memory
        self.copier = copier
        self.collate = partial(collate, find_present=find_present)
        self.rank = rank
        self.world = world
        self.most_batches: int | None = None
        """`once` ends after so many batches."""
        self.skipped = 0
        """Times that a sample of this rank was broken and skipped."""
        self._served = 0
        self._logged: set[str] = set()
        self._kept: DataLoader | None = None
        """That of `once`, with persistent workers."""

    @property
    def steps_per_epoch(self) -> int:
        """Full batches that every rank can take from one epoch."""
        return len(self.dataset) // self.samples_per_step

    @property
    def samples_per_step(self) -> int:
        """Samples that all ranks together take in a step."""
        return self.batch_size * self.world

    def steps_until(self, epoch: int, start: Position) -> int:
        """Steps from a position on after which so many epochs are over; 0 if they are.

        What is left of an epoch at its end goes into the next one's first step.
        """
        left = (epoch - start.epoch) * len(self.dataset) - start.samples
        return max(0, -(-left // self.samples_per_step))

    def epoch_after(self, steps: int, start: Position) -> int:
        """The epoch from which the step comes that is taken after so many others."""
        return start.epoch + (start.samples + steps * self.samples_per_step) // len(self.dataset)

    def fit_position(self, position: Position) -> Position:
        """A position in this set: of one that has shrunk since, beyond its end, the beginning of the next epoch."""
        return position if position.samples < len(self.dataset) else Position(position.epoch + 1)

    def stream(self, start: Position) -> Iterator[tuple[Batch, Position]]:
        """Batches without end from a position on, each with the position after it. Workers live as long as it does."""
        assert self.steps_per_epoch, "a set smaller than a step has no batches"
        assert self.on_error is not OnError.DROP, "the batches of all ranks must be whole"
        positions: deque[Position] = deque()

        def keys() -> Iterator[list[Key]]:
            for batch, position in plan(
                start, self._order, batch_size=self.batch_size, rank=self.rank, world=self.world
            ):
                positions.append(position)
                yield batch

        with closing(self._batches(self._torch_loader(keys()))) as batches:
            for batch in batches:
                yield batch, positions.popleft()

    def once(self) -> Iterator[Batch]:
        """This rank's share of the data set, in order, each sample once; batches may be smaller than `batch_size`.

        Of a held-out set with blocks a batch holds samples of one of them. Of a training set every rank has at least
        `steps_per_epoch` whole batches.
        """
        if self._kept is not None:
            return self._batches(self._kept)
        keys = _InOrder(self.list_runs(), self.batch_size, self.most_batches)
        loader = self._torch_loader(keys, persistent_workers=self.persistent_workers)
        if self.persistent_workers:
            self._kept = loader
        return self._batches(loader)

    def list_runs(self) -> list[range]:
        """The indices of this rank's share, in order; of a held-out set with blocks, one range for each of them."""
        return share(len(self.dataset), None if self.shuffle else self.blocks, self.rank, self.world)

    def read(self, runs: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """The samples with these indices, in order. A batch holds samples of one run."""
        return self._batches(self._torch_loader(_InOrder(runs, self.batch_size, None)))

    def read_first(self, run: Sequence[int]) -> Read:
        """The first sample of a run that can be read; without a sample, what is wrong with all of them.

        UserError if one is broken, and none may be skipped.
        """
        guarded, skipped = Guarded(self.dataset, self.on_error), []
        for index in run:
            read = guarded[0, index]
            if read.error is not None:
                raise read.error
            skipped += read.skipped
            if read.sample is not None:
                return Read(read.sample, skipped)
        return Read(None, skipped)

    def count_batches(self) -> int:
        """Of `once`."""
        count = sum(-(-len(run) // self.batch_size) for run in self.list_runs())
        return count if self.most_batches is None else min(count, self.most_batches)

    def draw(self, count: int, *, whole: bool = False) -> Iterator[Batch]:
        """This rank's share of `count` random samples, or of all if there are fewer, each once. The same every time.

        whole: all of them, for a rank that works alone.

        They come from all over the set, in whole or in blocks. Neither the batch size nor the number of ranks changes
        which samples they are. Every rank gets as many batches, all whole, if `count` is a multiple of
        `samples_per_step`.
        """
        drawn = shuffle_indices(len(self.dataset), self.seed, _DRAWS)[:count]
        rank, step = (0, self.batch_size) if whole else (self.rank, self.samples_per_step)
        starts = range(rank * self.batch_size, len(drawn), step)
        runs = [drawn[start : start + self.batch_size].tolist() for start in starts]
        return self.read(runs)

    def some(self, count: int) -> Batch:
        """A batch of a few samples, spread evenly over the data set; the same on all ranks.

        Of images of different sizes, which no batch can hold, those that are as large as the first sample's.
        """
        count = min(count, len(self.dataset))
        guarded = Guarded(self.dataset, self.on_error)
        reads = [guarded[0, i * len(self.dataset) // count] for i in range(count)]
        like = next((get_forms(read.sample) for read in reads if read.sample is not None), None)
        batch = self._begin(
            self.collate([read for read in reads if read.sample is None or get_forms(read.sample) == like])
        )()
        if batch is None:
            raise too_many_bad_samples(reads[0].skipped[0])
        return batch

    def some_clips(self, count: int, frames: int) -> list[Batch]:
        """The first frames of a few of the blocks, which are sequences, spread evenly: a batch for each moment.

        They are of the size of the first, and as long: of `frames`, or of all if every sequence has fewer.
        """
        lengths = np.array(self.blocks)
        starts, frames = np.cumsum(lengths) - lengths, min(frames, int(lengths.max()))
        long_enough = starts[lengths >= frames].tolist()
        count = min(count, len(long_enough))
        guarded = Guarded(self.dataset, self.on_error)
        chosen = [long_enough[i * len(long_enough) // count] for i in range(count)]
        clips = [[guarded[0, start + t] for t in range(frames)] for start in chosen]
        forms = [[get_forms(read.sample) for read in clip if read.sample is not None] for clip in clips]
        like = next((of_clip for of_clip in forms if len(of_clip) == frames), None)
        taken = [clip for clip, of_clip in zip(clips, forms) if of_clip == like] or clips  # those hold the error
        batches = [self._begin(self.collate(list(moment)))() for moment in zip(*taken)]
        found = [batch for batch in batches if batch is not None]
        if like is None or not found:
            raise too_many_bad_samples(next(line for clip in clips for read in clip for line in read.skipped))
        return found

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.dataset))
        if self.blocks is not None:
            return shuffle_in_blocks(self.blocks, self.seed, epoch)
        return shuffle_indices(len(self.dataset), self.seed, epoch)

    def _torch_loader(self, keys: Iterable[list[Key]], persistent_workers: bool = False) -> DataLoader:
        guarded, compute_lock = Guarded(self.dataset, self.on_error), self.dataset.spec.compute_lock
        with mute_advice():
            return DataLoader(
                guarded if compute_lock is None else ReadAhead(guarded, compute_lock),
                batch_sampler=keys if compute_lock is None else PrefetchSampler(keys, self.num_workers),  # type: ignore[arg-type]
                num_workers=self.num_workers,
                collate_fn=self.collate,
                worker_init_fn=partial(_start_worker, os.getpid()),
                pin_memory=self.pin_memory,
                persistent_workers=persistent_workers,
                generator=torch.Generator(),  # else seeds for the workers, unused here, would be drawn from the global
            )

    def _batches(self, loader: DataLoader) -> Generator[Batch, None, None]:
        # Closed and not left to the garbage collector: after an error that would come late, and workers would stay.
        with closing(_serve(loader, [*self.dataset.spec.codecs, self.dataset])) as served:
            begun = map(self._begin, served)
            for wait in begun if self.copier is None else one_ahead(begun):
                batch = wait()
                if batch is not None:
                    yield batch

    def _begin(self, loaded: Loaded) -> Callable[[], Batch | None]:
        """Begins to bring a batch to the device; what it returns waits for that. Without samples there is no batch."""
        numbers = {name: torch.tensor(values) for name, values in loaded.numbers.items()}
        wait_for_copy = (self.copier or self._copy)({**loaded.tensors, **numbers})

        def finish() -> Batch | None:
            self._account(loaded)
            if not loaded.keys:
                return None
            batch = self.finish(Batch(wait_for_copy(), loaded.keys))
            return batch if loaded.present is None else batch.replace(label_present=torch.from_numpy(loaded.present))

        return finish

    def _copy(self, tensors: Mapping[str, Tensor]) -> Arrived:
        copies = {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}
        return lambda: copies

    def _account(self, loaded: Loaded) -> None:
        """Raises what ends the run; logs and counts what was skipped."""
        if loaded.error is not None:
            raise loaded.error
        self._served += len(next(iter(loaded.keys.values()), []))
        self.skipped += len(loaded.skipped)
        for line in loaded.skipped:
            if line not in self._logged:
                logger.warning("skipped: %s", line)
            self._logged.add(line)
        if self.on_error is OnError.DROP and self.skipped > max(TRIES, self._served):
            raise too_many_bad_samples(loaded.skipped[-1])


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Each item when the next one has been taken too, so that the next one's copy has begun."""
    items = iter(items)
    for item in items:
        held = item
        break
    else:
        return
    for item in items:
        yield held
        held = item
    yield held


@dataclass(frozen=True)
class _InOrder:
    """The keys of batches, as often as they are asked for."""

    runs: Sequence[Sequence[int]]
    batch_size: int
    most_batches: int | None

    def __iter__(self) -> Iterator[list[Key]]:
        batches = (run[at : at + self.batch_size] for run in self.runs for at in range(0, len(run), self.batch_size))
        for batch in islice(batches, self.most_batches):
            yield [(0, index) for index in batch]


def _serve(loader: DataLoader, parts: Sequence[object]) -> Generator[Loaded, None, None]:
    """What the workers hand over; parts: what is sent to them. RunError if one dies, or cannot be started."""
    before = active_children()
    with translate_worker_errors(), start_processes(parts if loader.num_workers else ()):
        try:
            batches = iter(loader)
        except OSError as error:
            free_frames(error)
            what = f"no process to read data can be started ({error.strerror})"
            raise RunError(f"{what}; lower data.num_workers (0: read without any)") from error
    workers = [child for child in active_children() if child not in before]
    end = partial(_kill, workers)
    # Python asks those that are left at its end to go, by a signal that they do not listen to, and waits for them.
    atexit.register(end)
    try:
        while True:
            with (
                translate_worker_errors(),
                translate_worker_errors(workers),
            ):  # torch's word may come while the other waits
                loaded = next(batches, None)
            if loaded is None:
                return
            yield loaded
    finally:
        del batches  # unless they persist, this ends the workers
        if not any(worker.is_alive() for worker in workers):
            atexit.unregister(end)


def _kill(workers: Sequence[BaseProcess]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would take it for an accident
    for worker in workers:
        worker.kill()


def _start_worker(run: int, worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    # Signals go to a whole process group: what they ask for is for the run to do, and its workers end with it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # The parent of a worker that comes from a fork server is that server, which ends with the run.
    parent = os.getppid() if multiprocessing.get_start_method() == "forkserver" else run
    threading.Thread(target=_end_with, args=(parent,), name="parent watch", daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process once it has another parent: its own was killed.

    torch's workers look too, but take for their parent whoever it is when they begin; a run that is killed while they
    are being forked would leave them behind for ever.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)
