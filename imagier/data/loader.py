"""Batches from a data set: shuffled, sharded over ranks, and resumable at any sample."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from imagier.data.sample import Sample
from imagier.errors import UserError
from imagier.recipe import Batch, Position

Key = tuple[int, int]
_Loaded = tuple[dict[str, Tensor], dict[str, list[str]], "UserError | None"]


class Dataset(Protocol):
    """Samples by (epoch, index)."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of classes, in the order of their labels; none where samples have no labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Sample: ...

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Pictures as stored, checked, for a look at the set: over all indices, those of all samples."""
        ...


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
        num_workers: int = 0,
        persistent_workers: bool = False,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """finish: what happens to a batch once it is on the device (Expander). batch_size: samples a rank."""
        self.dataset = dataset
        self.batch_size = batch_size
        self.device = device
        self.finish = finish
        self.seed = seed
        self.shuffle = shuffle
        self.num_workers = num_workers
        self.persistent_workers = persistent_workers and num_workers > 0
        self.pin_memory = pin_memory
        self.most_batches: int | None = None
        """`once` ends after so many batches."""
        self._kept: DataLoader | None = None
        self.rank = rank
        self.world = world

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; what is left over at its end is dropped."""
        return len(self.dataset) // (self.batch_size * self.world)

    def stream(self, start: Position) -> Iterator[tuple[Batch, Position]]:
        """Batches without end from a position on, each with the position after it."""
        assert self.steps_per_epoch, "a set smaller than a step has no batches"
        batches = self._torch_loader(keys for keys, _ in self._plan(start))
        for loaded, (_, position) in zip(batches, self._plan(start)):
            yield self._on_device(loaded), position

    def once(self) -> Iterator[Batch]:
        """This rank's share of the data set, in order, each sample once; the last batch may be smaller."""
        mine = range(self.rank, len(self.dataset), self.world)
        keys = [[(0, i) for i in mine[at : at + self.batch_size]] for at in range(0, len(mine), self.batch_size)]
        keys = keys[: self.most_batches]
        loader = self._kept or self._torch_loader(keys, persistent_workers=self.persistent_workers)
        self._kept = loader if self.persistent_workers else None
        for loaded in loader:
            yield self._on_device(loaded)

    def some(self, count: int) -> Batch:
        """A batch of a few samples, spread evenly over the data set; the same on all ranks.

        Of pictures of different sizes, which no batch can hold, those that are as large as the first sample's.
        """
        count = min(count, len(self.dataset))
        keys = [(0, i * len(self.dataset) // count) for i in range(count)]
        samples = [self.dataset[key] for key in keys]
        return self._on_device(_collate([sample for sample in samples if _forms(sample) == _forms(samples[0])]))

    def _plan(self, start: Position) -> Iterator[tuple[list[Key], Position]]:
        """The keys of this rank's every batch, and the position after it."""
        total = self.batch_size * self.world
        epoch, samples = start.epoch, start.samples
        while True:
            order = self._order(epoch)
            while samples + total <= len(order):
                at = samples + self.rank * self.batch_size
                keys = [(epoch, int(index)) for index in order[at : at + self.batch_size]]
                samples += total
                ended = samples + total > len(order)
                yield keys, Position(epoch + 1, 0) if ended else Position(epoch, samples)
            epoch, samples = epoch + 1, 0

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.dataset))

    def _torch_loader(self, keys: Iterable[list[Key]], persistent_workers: bool = False) -> DataLoader:
        return DataLoader(
            _Guarded(self.dataset),
            batch_sampler=keys,
            num_workers=self.num_workers,
            collate_fn=_collate,
            worker_init_fn=_start_worker,
            pin_memory=self.pin_memory,
            persistent_workers=persistent_workers,
        )

    def _on_device(self, loaded: _Loaded) -> Batch:
        tensors, keys, error = loaded
        if error is not None:
            raise error
        on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}
        return self.finish(Batch(on_device, keys))


class _Guarded(torch.utils.data.Dataset):
    """Hands a user's mistake on as a value: an exception would leave a worker as a traceback."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Sample | UserError:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


def _forms(sample: Sample) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (array.shape, array.dtype) for name, array in sample.arrays.items()}


def _collate(samples: Sequence[Sample | UserError]) -> _Loaded:
    """Samples -> tensors N x H x W x C by input type, N x ... of their numbers, and their keys."""
    good = [sample for sample in samples if isinstance(sample, Sample)]
    for sample in samples:
        if isinstance(sample, UserError):
            return {}, {}, sample
    tensors = {}
    for name in good[0].arrays:
        arrays = [sample.arrays[name] for sample in good]
        forms = {f"{' x '.join(map(str, array.shape))} {array.dtype}" for array in arrays}
        if len(forms) > 1:
            return (
                {},
                {},
                UserError(
                    f"{good[0].keys[name]} and its batch: {name} of different sizes ({', '.join(sorted(forms))}); "
                    "crop or convert them, or use batch_size: 1"
                ),
            )
        stacked = np.stack(arrays)
        tensors[name] = torch.from_numpy(stacked.astype(np.int32) if stacked.dtype == np.uint16 else stacked)
    for name in good[0].numbers:
        tensors[name] = torch.tensor([sample.numbers[name] for sample in good])
    keys = {name: [sample.keys[name] for sample in good] for name in good[0].keys}
    return tensors, keys, None


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    # A whole process group is asked to end at once; the run saves first, and its workers end with it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
