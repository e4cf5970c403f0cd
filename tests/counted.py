"""A data set whose samples say which they are, and loaders of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from imagier.data.dataset import Dataset, DatasetSpec
from imagier.data.loading.loader import Loader
from imagier.data.sample import Sample
from imagier.recipe import Batch, Position


class Counted(Dataset):
    """Samples that hold nothing but where they come from: an image 1 x 1 of (epoch, index)."""

    def __init__(self, length: int) -> None:
        super().__init__(DatasetSpec(sources=[], codecs=[], augmentations={}))
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        array = np.array(key, np.uint16).reshape(1, 1, 2)
        return Sample({"at": array}, {"at": f"./{key[1]}"})

    def load(self, index: int) -> dict[str, np.ndarray]:
        return self[0, index].arrays


def loader(dataset: Any, batch_size: int, **options: Any) -> Loader:
    """A loader on the CPU that leaves batches as they are."""
    return Loader(dataset, batch_size, device=torch.device("cpu"), finish=lambda batch: batch, **options)


def places(batch: Batch) -> list[tuple[int, int]]:
    """(epoch, index) of every sample."""
    return [tuple(place) for place in batch["at"].flatten(1).tolist()]


def taken(stream: Iterator[tuple[Batch, Position]], count: int) -> list[tuple[list[tuple[int, int]], Position]]:
    """The next batches, as places, and the positions after them."""
    return [(places(batch), position) for batch, position in islice(stream, count)]


def content(batch: Batch) -> tuple[dict[str, list], dict[str, list[str]]]:
    """All that a batch holds, to be compared with =="""
    return {name: tensor.tolist() for name, tensor in batch.tensors.items()}, batch.keys
