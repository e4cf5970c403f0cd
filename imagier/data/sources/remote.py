"""A folder of an object store, with copies of what was read on a local disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from imagier.data.sources.disk_cache import DiskCache
from imagier.errors import UserError

_CHUNK_BYTES = 2**24
"""Bytes of a large object that are requested at a time."""


@dataclass(frozen=True)
class ObjectStat:
    """An object as it was listed."""

    size: int
    """Bytes."""
    version: str
    """Differs if the content differs: an ETag, a generation, a time."""


class ObjectStore(Protocol):
    """Reads the objects below one root of an object store; their names are what follows the root.

    Goes to worker processes by fork and by pickle, and opens connections in the process that reads. Lost connections
    and busy servers are retried; what stays wrong is a UserError.
    """

    @property
    def address(self) -> str:
        """The server and the root, ending with a separator: what entries of a cache begin with. May connect."""
        ...

    @property
    def path(self) -> str:
        """The root within its bucket or host, without slashes at its ends."""
        ...

    def list_objects(self) -> dict[str, ObjectStat]:
        """The objects directly below the root, sorted by name. UserError if there are none."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes of an object."""
        ...

    def read_range(self, name: str, offset: int, length: int, stat: ObjectStat) -> bytes:
        """A part of an object that lies within it. UserError if the object is no longer the one that was listed."""
        ...

    def where(self, name: str) -> str:
        """The address of an object, for messages: one line without secrets."""
        ...


class RemoteFolder:
    """The objects directly below a root. Those named by a path ("images/a/1.png") can be fetched as a whole, too."""

    def __init__(self, store: ObjectStore, cache: DiskCache | None = None) -> None:
        self.store = store
        self.cache = cache
        self._address = store.address if cache is not None else ""

    def names(self) -> list[str]:
        """All names, sorted, as of a flat folder. UserError if there are none."""
        return list(self._listed)

    def size(self, name: str) -> int:
        """Bytes of one of `names`."""
        return self._listed[name].size

    def where(self, name: str) -> str:
        """The address of an object, for messages; that of the folder for ""."""
        return self.store.where(name)

    def fetch(self, name: str) -> bytes:
        """All bytes of an object, from the cache if it has them. Assumes that the object never changes."""
        if self.cache is None:
            return self.store.read(name)
        entry = f"{self._address}{name}"
        data = self.cache.get(entry)
        if data is None:
            data = self.store.read(name)
            self.cache.put(entry, data)
        return data

    def read(self, name: str, offset: int, length: int) -> bytes:
        """A part of one of `names`, fewer bytes at its end. With a cache, all of the object is fetched at once.

        UserError if it is no longer the object that was listed.
        """
        stat = self._listed[name]
        length = max(0, min(length, stat.size - offset))
        if length == 0:
            return b""
        if self.cache is not None:
            entry = f"{self._address}{name} {stat.version}"
            data = self.cache.get_part(entry, stat.size, offset, length, lambda: self._chunks(name, stat))
            if data is not None:
                return data
        return self.store.read_range(name, offset, length, stat)

    def _chunks(self, name: str, stat: ObjectStat) -> Iterator[bytes]:
        for start in range(0, stat.size, _CHUNK_BYTES):
            yield self.store.read_range(name, start, min(_CHUNK_BYTES, stat.size - start), stat)

    @cached_property
    def _listed(self) -> dict[str, ObjectStat]:
        return self.store.list_objects()


def no_objects(where: str, advice: str = "check `roots`") -> UserError:
    """The error of a root without objects."""
    return UserError("no objects there", where=where, advice=advice, code="no-objects")


def object_replaced(where: str) -> UserError:
    """The error of an object that changed during a run, which so could not be resumed exactly."""
    what, advice = "was replaced after the run had listed it", "start the run again"
    return UserError(what, where=where, advice=advice, code="object-replaced")
