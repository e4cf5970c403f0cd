"""Many keys in little memory."""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

import numpy as np


class Keys:
    """Keys in one block of bytes, in their order.

    In a list each were an object, whose count of references changes when it is looked at: forked processes would soon
    have a copy of all of them, each its own.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        encoded = [key.encode() for key in keys]
        self.text = b"".join(encoded)
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), dtype=np.int64)
        hashes = np.fromiter(map(zlib.crc32, encoded), np.uint32, len(encoded))
        order = np.argsort(hashes, kind="stable")
        # Arrays of Python's: single numbers come out of them several times faster.
        self._ends = array("q", ends.tobytes())
        self._by_hash = array("i", order.astype(np.int32).tobytes())
        self._hashes = array("I", hashes[order].tobytes())

    @classmethod
    def of_block(cls, text: bytes, ends: np.ndarray) -> Keys:
        """From what `text` and `ends` of other keys were. ValueError if these are no keys'."""
        bounds = np.concatenate([[0], ends.ravel()])
        if ends.ndim != 1 or ends.dtype.kind != "i" or (np.diff(bounds) < 0).any() or bounds[-1] != len(text):
            raise ValueError("not the ends of keys")
        starts = bounds[:-1]
        return cls(text[start:end].decode() for start, end in zip(starts.tolist(), ends.tolist()))

    @property
    def ends(self) -> np.ndarray:
        """Where each key ends in `text`, in bytes."""
        return np.asarray(self._ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        return self._encoded(range(len(self))[index]).decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self.text[start:end].decode()
            start = end

    def find(self, key: str) -> int | None:
        """The place of a key, the first if it stands there several times; None if it does not."""
        encoded = key.encode()
        wanted = zlib.crc32(encoded)
        at = bisect_left(self._hashes, wanted)
        while at < len(self._hashes) and self._hashes[at] == wanted:
            place = self._by_hash[at]
            if self._encoded(place) == encoded:
                return place
            at += 1
        return None

    def first_repeated(self) -> str | None:
        """A key that stands there twice."""
        hashes = np.asarray(self._hashes, np.uint32)
        same_hash = [self._by_hash[i + 1] for i in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist()]
        return next((key for place in same_hash if self.find(key := self[place]) != place), None)

    def _encoded(self, place: int) -> bytes:
        return self.text[self._ends[place - 1] if place else 0 : self._ends[place]]
