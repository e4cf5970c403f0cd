"""The files of a data set as the doctor lists them: per split and type, in order, with a note of each."""

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

MOST_MESSAGES = 10_000
"""Of so many files of a column it is kept why they are wrong; of the others, that they are."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split of a data set, and what the config says of it."""

    name: str
    sources: Sequence[Source]
    codecs: Sequence[Codec]
    augmentations: Mapping[str, Any]
    interpolator: str = "INTER_LINEAR"
    paired: bool = True
    """Files of all types belong together by name."""
    clips: bool = False
    """Images are frames of videos."""
    skips: bool = False
    """A run leaves out files that are wrong, instead of stopping at one."""
    batch_size: int = 1
    labels: frozenset[str] = frozenset()
    """Types that make up the label: an image may have the same one as another."""


class FileTable:
    """The files of one type of a part."""

    def __init__(self, part: Split, codec: Codec, keys: Sequence[Sequence[str]]) -> None:
        """keys: those of each of the part's sources."""
        self.part = part
        self.codec = codec
        self.items = FileList(part.sources, keys)
        self.notes = np.zeros(len(self.items), NOTE)
        self.notes["flags"] = Flag.UNSEEN
        self.messages: dict[int, str] = {}
        self.remarks: dict[Remark, list[int]] = {}
        """What the codec says about files, and the files of each remark."""
        bins = 65536 if codec.num_classes is not None else 256
        self.pixels = np.zeros(bins, np.int64)
        """Pixels with each value, of images of one channel."""
        self.files = np.zeros(bins, np.int64)
        """Files with each value."""

    def __len__(self) -> int:
        return len(self.notes)

    @property
    def holds_videos(self) -> bool:
        """A file of it holds many images."""
        return is_video(self.part.sources[0], self.codec)

    def __str__(self) -> str:
        return f"{self.part.name}, {self.codec.name}"

    def where(self, place: int) -> str:
        """What to call a file in a message."""
        source, key = self.items[place]
        return source.where(self.codec.name, key)

    def message(self, place: int) -> str:
        """What is wrong with a file, with its name."""
        return self.messages.get(place) or self.where(place)

    def enter(self, place: int, seen: FileStats) -> None:
        """Keeps what is known of a file."""
        self.notes[place] = seen.note
        if seen.message and len(self.messages) < MOST_MESSAGES:
            self.messages[place] = seen.message
        for remark in seen.remarks:
            self.remarks.setdefault(remark, []).append(place)
        if seen.values is not None:
            values, pixels = seen.values
            self.pixels[values] += pixels
            self.files[values] += 1

    @property
    def looked_at(self) -> int:
        """How many files were opened, whatever came of it: all, unless the examination is a quick one."""
        return int(np.count_nonzero(self.notes["flags"] & Flag.UNSEEN == 0))

    @property
    def seen(self) -> np.ndarray:
        """Places of the files that could be read."""
        return np.flatnonzero(self.notes["flags"] & (Flag.UNSEEN | Flag.UNREADABLE) == 0)

    def flagged(self, flag: Flag) -> np.ndarray:
        """Places of the files with any of these flags."""
        return np.flatnonzero(self.notes["flags"] & flag)

    @cached_property
    def folders(self) -> dict[str, int]:
        """Files per outermost folder: that is an image's class, where there are classes."""
        counts: dict[str, int] = {}
        for keys in self.items.keys:
            for key in keys:
                name = key.partition("/")[0]
                counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items()))


def listed(part: Split) -> tuple[list[FileTable], list[str]]:
    """A part's columns, in the order of its types; and what is wrong with those that cannot be listed."""
    tables, problems = [], []
    for codec in part.codecs:
        keys: list[Sequence[str]] = []
        for source in part.sources:
            try:
                keys.append(source.keys(codec.name))
            except UserError as error:
                keys.append([])
                problems.append(str(error))
        tables.append(FileTable(part, codec, keys))
    return tables, problems


@dataclass(frozen=True)
class Partners:
    """Which files of another type belong to the files of the first."""

    table: FileTable
    places: np.ndarray
    """For each file of the first type that of its partner, -1 if it has none."""
    left_over: np.ndarray
    """Places of files that belong to none."""


def partners(tables: Sequence[FileTable]) -> Iterator[Partners]:
    """The partners of a paired part's first column, in each of the others.

    Video files and files for each frame do not belong together by name: only those of the first column's sort count.
    """
    first, *others = tables
    for table in others:
        if table.holds_videos != first.holds_videos:
            continue
        places, left_over = [], []
        for wanted, there, start in zip(first.items.keys, table.items.keys, table.items.starts):
            if wanted.text == there.text and np.array_equal(wanted.ends, there.ends):
                places.append(np.arange(start, start + len(there)))
                continue
            place_of = {key: start + i for i, key in enumerate(there)}
            places.append(np.array([place_of.pop(key, -1) for key in wanted], np.int64))
            left_over += sorted(place_of.values())
        yield Partners(table, np.concatenate(places), np.array(left_over, np.int64))
