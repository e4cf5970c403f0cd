"""Copies of remote files on a local disk, of limited total size. The least recently used ones are removed first.

An entry is a file: the data and their CRC-32, which reveals damage. Processes share nothing but the folder. An entry
gets its name when it is complete; its modification time says when it was last used. Entries are no pickles: reading a
malicious one cannot run code.

Not fsspec's caches: their size has no limit.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock

logger = logging.getLogger(__name__)

_FOLDER = "imagier-cache"
"""The subfolder for entries, so that files of the user are never removed."""
_CRC_BYTES = 4
_CHUNK_BYTES = 2**20
_BLOCK_BYTES = 4096
"""Files occupy a multiple of this on the disk."""
_KEEP = 0.9
"""Making room goes down to this share of the limit, so that not every new entry lists all others."""
_LOCK_S = 300.0


@cache
def open_cache(root: str, size_bytes: int) -> DiskCache:
    """The cache of a folder, one per process for all sources, so that a problem is logged once."""
    return DiskCache(root, size_bytes)


class DiskCache:
    """A folder of at most `size_bytes`, for any number of processes.

    If it cannot be written (disk full, no permission), it logs that once and stores no more, but still reads.
    """

    def __init__(self, root: str | Path, size_bytes: int) -> None:
        self.folder = Path(root).expanduser().absolute() / _FOLDER
        self.size_bytes = size_bytes
        self._is_off = torch.zeros((), dtype=torch.bool).share_memory_()  # shared by all workers of the run
        self._verified: set[tuple[str, int]] = set()
        """Name and inode of entries whose CRC `get_part` has checked."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                taken = self._read_taken()
                self._write_taken(taken if taken <= size_bytes else self._make_room(0))
        except OSError as error:
            self._turn_off(error)

    def get(self, key: str) -> bytes | None:
        """The data of a key; None if there are none or they are damaged."""
        path = self._path(key)
        try:
            entry = path.read_bytes()
        except OSError:
            return None
        data = entry[:-_CRC_BYTES]
        if len(entry) < _CRC_BYTES or _trailer(zlib.crc32(data)) != entry[-_CRC_BYTES:]:
            _remove(path)
            return None
        _touch(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Stores data, unless they exceed the size of the cache."""
        self._store(key, len(data), lambda: [data])

    def get_part(
        self, key: str, size: int, offset: int, length: int, fetch: Callable[[], Iterable[bytes]]
    ) -> bytes | None:
        """`length` bytes from `offset` of an entry of `size` bytes, without reading all of it.

        fetch: returns the whole entry in chunks, if it is not there; of several processes that need it, one fetches.
        None if the entry cannot be stored: it is too large, or the cache is off.
        """
        path = self._path(key)
        found = self._read_part(path, size, offset, length)
        if found is not None or self._is_off or _disk_bytes(size) > self.size_bytes:
            return found
        try:
            with FileLock(self.folder / f"fetch-{path.parent.name}"):
                found = self._read_part(path, size, offset, length)
                if found is None:
                    self._store(key, size, fetch)
                    found = self._read_part(path, size, offset, length)
        except OSError as error:
            self._turn_off(error)
        return found

    def _read_part(self, path: Path, size: int, offset: int, length: int) -> bytes | None:
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                entry = (path.name, stat.st_ino)
                if stat.st_size != size + _CRC_BYTES or not (entry in self._verified or _is_whole(file, size)):
                    _remove(path)
                    return None
                self._verified.add(entry)
                file.seek(offset)
                found = file.read(min(length, size - offset))
        except OSError:
            return None
        _touch(path)
        return found

    def _store(self, key: str, size: int, fetch: Callable[[], Iterable[bytes]]) -> None:
        if self._is_off or _disk_bytes(size) > self.size_bytes:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._reserve(path, size)
            try:
                with unfinished.open("r+b") as file:
                    _write(file, fetch())
                unfinished.replace(path)
                _touch(path)
            finally:
                _remove(unfinished)
        except FileNotFoundError:
            return  # it took so long that another process removed it to make room
        except OSError as error:
            self._turn_off(error)

    def _reserve(self, path: Path, size: int) -> Path:
        """Makes room for an entry, by a file of its final length that other processes count from now on."""
        with self._lock():
            taken = self._read_taken()
            if taken + _disk_bytes(size) > self.size_bytes:
                taken = self._make_room(_disk_bytes(size))
            if taken + _disk_bytes(size) > self.size_bytes:
                raise PermissionError(errno.EACCES, "entries of another user cannot be removed")
            self._write_taken(taken + _disk_bytes(size))  # first: if killed here, no file is left uncounted
            number, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
            os.close(number)
            try:
                os.truncate(name, size + _CRC_BYTES)
            except OSError:
                _remove(Path(name))
                raise
        return Path(name)

    def _make_room(self, size: int) -> int:
        """Removes the least recently used entries until `size` more bytes fit; returns the bytes still taken."""
        entries = sorted(self._entries())
        taken = sum(entry_size for _, entry_size, _ in entries)
        limit = min(self.size_bytes * _KEEP, self.size_bytes - size)
        for _, entry_size, path in entries:
            if taken <= limit:
                break
            if _remove(path):
                taken -= entry_size
        return taken

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """Time of last use in ns, bytes on disk and path of every entry, finished or not."""
        for path in self.folder.glob("??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            yield stat.st_mtime_ns, _disk_bytes(stat.st_size - _CRC_BYTES), path

    def _read_taken(self) -> int:
        """Bytes taken: at least as many as the entries have, more if files were removed or never finished."""
        try:
            return int((self.folder / "taken").read_text())
        except (FileNotFoundError, ValueError):
            return sum(size for _, size, _ in self._entries())

    def _write_taken(self, taken: int) -> None:
        # In place, with a constant length: on some file systems a new file has to wait for the disk.
        number = os.open(self.folder / "taken", os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.write(number, f"{taken:020}".encode())
        finally:
            os.close(number)

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "lock", timeout=_LOCK_S, poll_interval=0.002)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name[2:]

    def _turn_off(self, error: OSError) -> None:
        if not self._is_off:
            self._is_off.fill_(True)
            reason = error.strerror or str(error)
            logger.warning(
                f"{self.folder}: the cache cannot be written ({reason}); continuing without storing more in it"
            )


def _write(file: BinaryIO, chunks: Iterable[bytes]) -> None:
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
        file.write(chunk)
    file.write(_trailer(crc))


def _is_whole(file: BinaryIO, size: int) -> bool:
    crc, left = 0, size
    while left:
        chunk = file.read(min(_CHUNK_BYTES, left))
        if not chunk:
            return False
        crc = zlib.crc32(chunk, crc)
        left -= len(chunk)
    return file.read() == _trailer(crc)


def _trailer(crc: int) -> bytes:
    return crc.to_bytes(_CRC_BYTES, "big")


def _disk_bytes(size: int) -> int:
    """Bytes on the disk of an entry with `size` bytes of data."""
    return -(-(size + _CRC_BYTES) // _BLOCK_BYTES) * _BLOCK_BYTES


def _remove(path: Path) -> bool:
    """Removes a file if it exists; returns whether it is gone. If not, it only takes up space."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _touch(path: Path) -> None:
    """Sets the time of last use, if possible: the entry may be gone, or the folder read-only."""
    try:
        now = time.time_ns()  # finer than the clock of the file system
        os.utime(path, ns=(now, now))
    except OSError:
        return
