"""The files of a data set: a table for each split and type, with a note on every file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from imagier.data.codec import Codec, Remark
from imagier.data.listing.files import FileList
from imagier.data.sources.source import Source
from imagier.errors import UserError
from imagier.tools.doctor.file_stats import NOTE, FileStats, Flag, is_video

MAX_MESSAGES = 10_000
"""A table keeps the messages of so many wrong files; of any others it keeps only the flags."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split of a data set, with its settings from the config."""

    name: str
    sources: Sequence[Source]
    codecs: Sequence[Codec]
    augmentations: Mapping[str, Any]
    interpolator: str = "INTER_LINEAR"
    is_paired: bool = True
    """Files of the same name in all types make up a sample."""
    is_video: bool = False
    """Images are frames of videos."""
    is_cut: bool = False
    """A part of each image is cut out and gets one size for all."""
    should_skip: bool = False
    """A run skips broken files instead of stopping."""
    batch_size: int = 1
    labels: frozenset[str] = frozenset()
    """Types that make up the label. Different images may have the same label."""
    instances: frozenset[str] = frozenset()
    """Types of which a method reads numbers of instances: values that are no classes."""

    @property
    def plain_labels(self) -> frozenset[str]:
        """Types of the label whose values networks see as they are, unless the config says that they are classes."""
        return self.labels - self.instances


class FileTable:
    """The files of one type in a split."""

    def __init__(self, split: Split, codec: Codec, keys: Sequence[Sequence[str]]) -> None:
        """keys: one sequence for each source of the split."""
        self.split = split
        self.codec = codec
        self.items = FileList(split.sources, keys)
        self.notes = np.zeros(len(self.items), NOTE)
        self.notes["flags"] = Flag.UNREAD
        self.messages: dict[int, str] = {}
        self.remarks: dict[Remark, list[int]] = {}
        """The remarks of the codec, with the files of each."""
        bins = 65536 if codec.num_classes is not None else 256
        self.pixels = np.zeros(bins, np.int64)
        """Number of pixels with each value, for images of one channel."""
        self.files = np.zeros(bins, np.int64)
        """Number of files with each value."""

    def __len__(self) -> int:
        return len(self.notes)

    @property
    def has_videos(self) -> bool:
        """Whether its files are videos."""
        return is_video(self.split.sources[0], self.codec)

    def __str__(self) -> str:
        return f"{self.split.name}, {self.codec.name}"

    def where(self, index: int) -> str:
        """The name of a file in messages."""
        source, key = self.items[index]
        return source.where(self.codec.name, key)

    def message(self, index: int) -> str:
        """What is wrong with a file, including its name."""
        return self.messages.get(index) or self.where(index)

    def add(self, index: int, stats: FileStats) -> None:
        """Records the statistics of a file."""
        self.notes[index] = stats.note
        if stats.message and len(self.messages) < MAX_MESSAGES:
            self.messages[index] = stats.message
        for remark in stats.remarks:
            self.remarks.setdefault(remark, []).append(index)
        if stats.values is not None:
            values, pixels = stats.values
            self.pixels[values] += pixels
            self.files[values] += 1

    @property
    def num_opened(self) -> int:
        """Number of files that were opened, readable or not. A quick check does not open all."""
        return int(np.count_nonzero(self.notes["flags"] & Flag.UNREAD == 0))

    @property
    def readable(self) -> np.ndarray:
        """Indices of the files that could be read."""
        return np.flatnonzero(self.notes["flags"] & (Flag.UNREAD | Flag.UNREADABLE) == 0)

    def find_flagged(self, flag: Flag) -> np.ndarray:
        """Indices of the files with any of these flags."""
        return np.flatnonzero(self.notes["flags"] & flag)

    @cached_property
    def folders(self) -> dict[str, int]:
        """Files per outermost folder, which is the class in sets with classes."""
        counts: dict[str, int] = {}
        for keys in self.items.keys:
            for key in keys:
                name = key.partition("/")[0]
                counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items()))


def list_files(split: Split) -> tuple[list[FileTable], list[UserError]]:
    """The file tables of a split, in the order of its types, and the errors of sources that cannot be listed."""
    tables, problems = [], []
    for codec in split.codecs:
        keys: list[Sequence[str]] = []
        for source in split.sources:
            try:
                keys.append(source.keys(codec.name))
            except UserError as error:
                keys.append([])
                problems.append(error)
        tables.append(FileTable(split, codec, keys))
    return tables, problems


@dataclass(frozen=True)
class Partners:
    """The files of another type that belong to the files of the first."""

    table: FileTable
    indices: np.ndarray
    """The partner of each file of the first type; -1 if it has none."""
    left_over: np.ndarray
    """Indices of files without a partner in the first type."""


def match_partners(tables: Sequence[FileTable]) -> Iterator[Partners]:
    """The partners of the first table's files in each of the other tables of a paired split.

    Videos and files for single frames do not match by name, so tables that differ from the first in this are left out.
    """
    first, *others = tables
    for table in others:
        if table.has_videos != first.has_videos:
            continue
        indices, left_over = [], []
        for wanted, there, start in zip(first.items.keys, table.items.keys, table.items.starts):
            if wanted.text == there.text and np.array_equal(wanted.ends, there.ends):
                indices.append(np.arange(start, start + len(there)))
                continue
            place_of = {key: start + i for i, key in enumerate(there)}
            indices.append(np.array([place_of.pop(key, -1) for key in wanted], np.int64))
            left_over += sorted(place_of.values())
        yield Partners(table, np.concatenate(indices), np.array(left_over, np.int64))
