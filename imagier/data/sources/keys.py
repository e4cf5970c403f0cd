"""A list of keys in little memory."""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

import numpy as np


class Keys:
    """Keys in one block of bytes, in their order.

    In a list, each key would be an object of its own. Reading changes the reference count of an object, so each forked
    worker would soon have its own copy of all of them.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        encoded = [key.encode() for key in keys]
        self.text = b"".join(encoded)
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), dtype=np.int64)
        hashes = np.fromiter(map(zlib.crc32, encoded), np.uint32, len(encoded))
        order = np.argsort(hashes, kind="stable")
        # array and not np.ndarray: reading single numbers is several times faster.
        self._ends = array("q", ends.tobytes())
        self._by_hash = array("i", order.astype(np.int32).tobytes())
        self._hashes = array("I", hashes[order].tobytes())

    @classmethod
    def from_block(cls, text: bytes, ends: np.ndarray) -> Keys:
        """From the `text` and `ends` of other keys. ValueError if they do not fit together."""
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
        return self._get_bytes(range(len(self))[index]).decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self.text[start:end].decode()
            start = end

    def find(self, key: str) -> int | None:
        """The index of a key, the first one if it occurs more than once; None if it does not occur."""
        encoded = key.encode()
        wanted = zlib.crc32(encoded)
        i = bisect_left(self._hashes, wanted)
        while i < len(self._hashes) and self._hashes[i] == wanted:
            index = self._by_hash[i]
            if self._get_bytes(index) == encoded:
                return index
            i += 1
        return None

    def find_repeated(self) -> str | None:
        """A key that occurs more than once."""
        hashes = np.asarray(self._hashes, np.uint32)
        same_hash = [self._by_hash[i + 1] for i in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist()]
        return next((key for index in same_hash if self.find(key := self[index]) != index), None)

    def _get_bytes(self, index: int) -> bytes:
        return self.text[self._ends[index - 1] if index else 0 : self._ends[index]]
