"""What ranks know of the images of a set, put together: each image once, in an order that is always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from imagier.metrics.feature_metric import FeatureMetric, FeatureSet
from imagier.recipe import Batch
from imagier.train.clips import FrameJoiner
from imagier.train.runtime import Runtime

Name = tuple[int, int]
"""Numbers for the names of an image and of its sample: of a list of files that begins again, several samples hold one
image."""

SetKey = tuple[str, str]
"""The features of a set of images, and its domain."""


CLIP_FRAMES = 16
"""Frames of the clips that are compared as sets."""

_CHUNK = 1 << 18
"""Numbers that are hashed at a time."""


class ImageRows:
    """Features of images, batch by batch, with the name of each image."""

    def __init__(self) -> None:
        self.names: list[Name] = []
        self.columns: list[list[Tensor | None]] = []

    def add(self, names: Sequence[Name], *columns: Tensor | None) -> None:
        """Adds features, logits, labels and digests of a batch, each with a row for each name."""
        self.names += names
        self.columns.append([None if column is None else column.cpu() for column in columns])

    def join(self) -> tuple[Tensor, list[Tensor | None]]:
        """The names, N x 2, and all rows of each column."""
        columns = [join_rows(parts) for parts in zip(*self.columns)]
        return torch.tensor(self.names, dtype=torch.int64).view(-1, 2), columns


class SetRows:
    """Features of the images of all sets, batch by batch."""

    def __init__(self) -> None:
        self.sets: dict[SetKey, ImageRows] = {}
        self._joiners: dict[SetKey, FrameJoiner] = {}

    def join(self, batch: Batch, key: SetKey, pixels: Tensor, names: Sequence[Name]) -> tuple[Tensor, list[Name], None]:
        """The clips that are complete with these frames, N x T x 3 x H x W, and the name of the first frame of each."""
        joiner = self._joiners.setdefault(key, FrameJoiner(CLIP_FRAMES))
        clips = joiner.add(batch, {"pixels": pixels, "names": torch.tensor(names)})
        firsts = [clip["names"][0, 0].tolist() for clip in clips]
        return torch.cat([clip["pixels"] for clip in clips]) if clips else pixels, [(a, b) for a, b in firsts], None


def join_rows(parts: Sequence[Tensor | None]) -> Tensor | None:
    """All rows of tensors; None if a part has none."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None


def merge_sets(rows: Mapping[SetKey, ImageRows], runtime: Runtime) -> dict[SetKey, tuple[FeatureSet, Tensor | None]]:
    """The sets of all ranks, and the digests of their images. Each name once, and in an order that is always the same.

    So numbers depend neither on the number of ranks nor on the size of batches.
    """
    of_ranks = runtime.all_gather_objects({key: of_set.join() for key, of_set in rows.items()})
    merged = {}
    for key in dict.fromkeys(key for of_rank in of_ranks for key in of_rank):
        shares = [of_rank[key] for of_rank in of_ranks if key in of_rank]
        order = _order_once(torch.cat([names for names, _ in shares]))
        columns = [join_rows(parts) for parts in zip(*(columns for _, columns in shares))]
        ordered = [None if column is None else column[order] for column in columns]
        features, logits, labels, digests = [*ordered, None][:4]
        assert features is not None
        merged[key] = FeatureSet(features, logits, labels), digests
    return merged


def list_lacking(
    real: Mapping[SetKey, FeatureSet], metrics: Sequence[FeatureMetric]
) -> list[tuple[FeatureMetric, str]]:
    """The metrics for which there are too few real images, and a line about each. real: those of all ranks."""
    found = []
    for metric in metrics:
        count = min((len(of) for (features, _), of in real.items() if features == metric.features), default=0)
        if count < metric.min_images:
            what = f"held-out parts of {CLIP_FRAMES} frames" if metric.takes_clips else "held-out images"
            found.append((metric, f"{metric.name} needs {metric.min_images} {what}, but there are {count}"))
    return found


def name_samples(batch: Batch, input_type: str | None) -> list[Name]:
    """A name for each sample: that of its file of that type, or of all its files."""
    wholes = [_hash_name(" ".join(of_sample)) for of_sample in zip(*batch.keys.values())]
    if input_type not in batch.keys:
        return [(whole, whole) for whole in wholes]
    return [(_hash_name(file), whole) for file, whole in zip(batch.keys[input_type], wholes)]


def hash_samples(batch: Batch) -> Tensor:
    """A hash of all tensors of each sample, N x 8, uint8; the same on all devices.

    It is a sum of integers, each times a random one, without regard to overflow: made for large tensors, and not
    against people who want two samples to have the same.
    """
    total = torch.zeros(len(batch), dtype=torch.int64)
    for name in sorted(batch.tensors):
        values = batch[name].flatten(1) if batch[name].dim() > 1 else batch[name][:, None]
        numbers = values.float().view(torch.int32).long() if values.is_floating_point() else values.long()
        factors = _draw_factors(_hash_name(name) % 2**63).to(numbers.device)
        for index, part in enumerate(numbers.split(_CHUNK, dim=1)):
            total += (part * factors[: part.shape[1]]).sum(dim=1).cpu() * (2 * index + 1)
    return total.view(torch.uint8).view(len(batch), -1)


@lru_cache(maxsize=16)
def _draw_factors(seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**62), 2**62, (_CHUNK,), generator=rng) * 2 + 1


def _order_once(names: Tensor) -> Tensor:
    """The indices of the first of each image, by the names of their samples; sorted by the names of the images."""
    order = names[:, 1].argsort(stable=True)
    order = order[names[order, 0].argsort(stable=True)]
    is_first = torch.ones(len(order), dtype=torch.bool)
    is_first[1:] = names[order, 0][1:] != names[order, 0][:-1]
    return order[is_first]


def _hash_name(name: str) -> int:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
