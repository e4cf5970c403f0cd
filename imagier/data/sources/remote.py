"""A folder of an object store, with a cache on a local disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from imagier.data.sources.compute_lock import ComputeLock
from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.retry import TRANSIENT_STATUS, Failure
from imagier.errors import UserError

CONNECT_S, READ_S = 10, 30
"""A request is repeated if the server does not answer within these times."""
MOST_CONNECTIONS = 64
"""Of a process: it waits for so many objects at once at most."""
_CHUNK_BYTES = 2**24
"""Bytes of a large object that are requested at a time."""


@dataclass(frozen=True)
class ObjectStat:
    """What a list says about an object."""

    size: int
    """Bytes."""
    version: str
    """Changes with the content: an ETag, a generation, a time."""


class ObjectStore(Protocol):
    """Reads objects below a root of an object store; their names are relative to the root.

    Worker processes get it by fork or by pickle, so it opens connections in the process that reads. It retries when a
    connection is lost or a server is busy. UserError if that does not help.
    """

    @property
    def address(self) -> str:
        """The server and the root, ending with a separator: the prefix of cache keys. May connect."""
        ...

    @property
    def path(self) -> str:
        """The root within its bucket or host, without slashes at its ends."""
        ...

    def connect(self) -> bool:
        """Opens what this process reads by, if it is not open. Returns whether threads may read at once."""
        ...

    def list_objects(self) -> dict[str, ObjectStat]:
        """The objects directly below the root, sorted by name. UserError if there are none."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes of an object."""
        ...

    def read_range(self, name: str, offset: int, length: int, stat: ObjectStat) -> bytes:
        """A part of an object, within its size. UserError if the object was replaced after it was listed."""
        ...

    def where(self, name: str) -> str:
        """The address of an object, for messages: one line without secrets."""
        ...


class RemoteFolder:
    """The objects directly below a root. Deeper ones ("images/a/1.png") can be fetched, but not read in parts."""

    def __init__(
        self, store: ObjectStore, cache: DiskCache | None = None, compute_lock: ComputeLock | None = None
    ) -> None:
        """compute_lock: released while objects are fetched."""
        self.store = store
        self.cache = cache
        self.compute_lock = compute_lock or ComputeLock()
        self._address = store.address if cache is not None else ""

    def names(self) -> list[str]:
        """The names of the objects directly below the root, sorted. UserError if there are none."""
        return list(self._listed)

    def size(self, name: str) -> int:
        """Bytes of one of `names`."""
        return self._listed[name].size

    def where(self, name: str) -> str:
        """The address of an object, for messages; that of the folder for ""."""
        return self.store.where(name)

    def fetch(self, name: str) -> bytes:
        """All bytes of an object, from the cache if it has them; assumes that objects do not change."""
        with self._wait():
            return self._fetch(name)

    def _fetch(self, name: str) -> bytes:
        if self.cache is None:
            return self.store.read(name)
        entry = f"{self._address}{name}"
        data = self.cache.get(entry)
        if data is None:
            data = self.store.read(name)
            self.cache.put(entry, data)
        return data

    def read(self, name: str, offset: int, length: int) -> bytes:
        """A part of one of `names`, fewer bytes at its end. With a cache, the whole object is fetched first.

        UserError if the object was replaced after it was listed.
        """
        stat = self._listed[name]
        length = max(0, min(length, stat.size - offset))
        if length == 0:
            return b""
        with self._wait():
            return self._read(name, offset, length, stat)

    def _read(self, name: str, offset: int, length: int, stat: ObjectStat) -> bytes:
        if self.cache is not None:
            entry = f"{self._address}{name} {stat.version}"
            data = self.cache.get_part(entry, stat.size, offset, length, lambda: self._fetch_chunks(name, stat))
            if data is not None:
                return data
        return self.store.read_range(name, offset, length, stat)

    def _wait(self) -> AbstractContextManager[None]:
        """In this, other threads may go on. It is open around locks, too: who holds one may not wait for a turn."""
        return self.compute_lock.release() if self.store.connect() else nullcontext()

    def _fetch_chunks(self, name: str, stat: ObjectStat) -> Iterator[bytes]:
        for start in range(0, stat.size, _CHUNK_BYTES):
            yield self.store.read_range(name, start, min(_CHUNK_BYTES, stat.size - start), stat)

    @cached_property
    def _listed(self) -> dict[str, ObjectStat]:
        return self.store.list_objects()


def no_objects(where: str, advice: str = "check `roots`") -> UserError:
    """The error for a root without objects."""
    return UserError("no objects there", where=where, advice=advice, code="no-objects")


def explain_status(status: int | None, where: str, answer: str = "") -> Failure | None:
    """The meaning of an HTTP status, if it is the same in all stores. answer: the status in the store's words."""
    if status in TRANSIENT_STATUS:
        what = f"{answer or status}, the server is busy or broken"
        return Failure(UserError(what, where=where, code="server-busy"), is_transient=True)
    if status in (412, 416):
        return Failure(object_replaced(where), is_transient=False)
    if status == 404:
        advice = "check `roots`, and whether it was uploaded"
        missing = UserError("no such object", where=where, advice=advice, code="no-such-object")
        return Failure(missing, is_transient=False)
    return None


def object_replaced(where: str) -> UserError:
    """The error for an object that changed during a run: such a run could not be resumed exactly."""
    what, advice = "was replaced after the run had listed it", "start the run again"
    return UserError(what, where=where, advice=advice, code="object-replaced")
