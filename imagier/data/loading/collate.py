"""Samples side by side, put together in the process that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from imagier.data.loading.faults import Read
from imagier.data.sample import Number, Sample
from imagier.errors import UserError

FindPresent = Callable[[Mapping[str, Tensor]], Tensor | None]
"""Stored tensors -> which channels of the label may hold other values than 0, N x L, bool; None if nobody can say."""


@dataclass(frozen=True)
class Loaded:
    """A batch on the CPU as it travels from a worker to the run, or the mistake that ends the run."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    """N x ... by input type. A worker holds them in shared memory: only their handles travel."""
    numbers: dict[str, list[Number]] = field(default_factory=dict)
    """Plain: a handle would cost more than they do."""
    keys: dict[str, list[str]] = field(default_factory=dict)
    present: np.ndarray | None = None
    """Which channels of the label may hold other values than 0, N x L, bool; plain, and it stays on the host."""
    skipped: list[str] = field(default_factory=list)
    """A line for every sample that could not be read and was skipped."""
    error: UserError | None = None

    def pin_memory(self) -> Loaded:
        """The same in memory from where copying to a device does not wait; torch calls it."""
        return replace(self, tensors={name: tensor.pin_memory() for name, tensor in self.tensors.items()})


def collate(reads: Sequence[Read], find_present: FindPresent | None = None) -> Loaded:
    """Samples -> tensors N x H x W x C by input type (uint16 becomes int32), numbers and keys of each.

    Of no sample at all, nothing. Images that do not fit together are an error.
    """
    skipped = [line for read in reads for line in read.skipped]
    samples = [read.sample for read in reads if read.sample is not None]
    error = next((read.error for read in reads if read.error is not None), None) or _find_misfit(samples)
    if error is not None or not samples:
        return Loaded(skipped=skipped, error=error)
    tensors = {name: _stack([sample.arrays[name] for sample in samples]) for name in samples[0].arrays}
    numbers = {name: [sample.numbers[name] for sample in samples] for name in samples[0].numbers}
    keys = {name: [sample.keys[name] for sample in samples] for name in samples[0].keys}
    present = None if find_present is None else find_present(tensors)
    try:
        if get_worker_info() is not None:
            # Here and not by torch's queue: from its thread an error would reach nobody, and the run would wait.
            tensors = {name: tensor.share_memory_() for name, tensor in tensors.items()}
    except RuntimeError as full:
        return Loaded(error=UserError(f"{_FULL} ({full})"))
    return Loaded(tensors, numbers, keys, None if present is None else present.numpy(), skipped)


_FULL = (
    "the shared memory that brings batches from the workers (/dev/shm) is full: lower data.num_workers or the "
    "batch_size, or make it larger (docker run --shm-size=8g)"
)


def get_forms(sample: Sample) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array; samples that agree in it fit in a batch."""
    return {name: (array.shape, array.dtype) for name, array in sample.arrays.items()}


def _find_misfit(samples: Sequence[Sample]) -> UserError | None:
    """What keeps samples from standing side by side."""
    for name in samples[0].arrays if samples else ():
        arrays = [sample.arrays[name] for sample in samples]
        shown = sorted({f"{' x '.join(map(str, array.shape))} {array.dtype}" for array in arrays})
        if len(shown) > 1:
            return UserError(
                f"{samples[0].keys[name]} and its batch: {name} of different sizes ({', '.join(shown)})",
                advice="crop or convert them, or use batch_size: 1",
            )
    return None


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    stacked = np.stack(arrays)
    return torch.from_numpy(stacked.astype(np.int32) if stacked.dtype == np.uint16 else stacked)
