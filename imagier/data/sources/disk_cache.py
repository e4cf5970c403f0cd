"""Copies of remote files on a local disk: never more of them than a bound allows, those not used for longest go first.

An entry is a file: the bytes, and behind them their CRC-32, by which a damaged entry is found out. Processes share a
folder through it alone: an entry gets its name when it is whole, and its modification time is when it was last used.
Nothing that is read here is ever executed, as a pickle would be.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock

_FOLDER = "imagier-cache"
"""Of our own within `root`, so that no file of the user's is ever taken for an old entry."""
_CRC_BYTES = 4
_CHUNK_BYTES = 2**20
_BLOCK_BYTES = 4096
"""What a file takes of a disk is a multiple of this."""
_KEPT = 0.9
"""Room is made down to this share of the bound, so that not every entry that comes in costs a look at all others."""
_LOCK_S = 300.0


def tell(line: str) -> None:
    """Prints a line on standard error, from a worker too."""
    print(line, file=sys.stderr, flush=True)


@cache
def shared_cache(root: str, size_bytes: int) -> DiskCache:
    """One for all sources of a process that name the same folder: what is wrong with it is told once."""
    return DiskCache(root, size_bytes)


class DiskCache:
    """A folder of at most `size_bytes`, for any number of processes.

    Where it cannot be written (a full disk, no permission), that is told once, and from then on nothing is stored; what
    is there is still read.
    """

    def __init__(self, root: str | Path, size_bytes: int, say: Callable[[str], None] = tell) -> None:
        """say: tells a person a line."""
        self.folder = Path(root).expanduser().absolute() / _FOLDER
        self.size_bytes = size_bytes
        self.say = say
        self._stopped = torch.zeros((), dtype=torch.bool).share_memory_()  # one for all workers of the run
        self._compared: set[tuple[str, int]] = set()
        """Name and inode of the entries whose CRC was compared for `part`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                taken = self._noted()
                self._note(taken if taken <= size_bytes else self._make_room(0))
        except OSError as error:
            self._stop(error)

    def get(self, key: str) -> bytes | None:
        """The bytes stored under a key; None if there are none, or if they are no longer what was stored."""
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
        """Stores bytes; nothing happens if they are more than the bound."""
        self._store(key, len(data), lambda: [data])

    def part(self, key: str, size: int, offset: int, length: int, fetch: Callable[[], Iterable[bytes]]) -> bytes | None:
        """`length` bytes from `offset` on of an entry of `size` bytes, without reading all of it.

        fetch: brings the whole of it, if it is not there; of all processes that ask at a time, one fetches.
        None if it cannot be stored, since it is more than the bound, or nothing can.
        """
        path = self._path(key)
        found = self._part(path, size, offset, length)
        if found is not None or self._stopped or _on_disk(size) > self.size_bytes:
            return found
        try:
            with FileLock(self.folder / f"fetch-{path.parent.name}"):
                found = self._part(path, size, offset, length)
                if found is None:
                    self._store(key, size, fetch)
                    found = self._part(path, size, offset, length)
        except OSError as error:
            self._stop(error)
        return found

    def _part(self, path: Path, size: int, offset: int, length: int) -> bytes | None:
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                entry = (path.name, stat.st_ino)
                if stat.st_size != size + _CRC_BYTES or not (entry in self._compared or _is_whole(file, size)):
                    _remove(path)
                    return None
                self._compared.add(entry)
                file.seek(offset)
                found = file.read(min(length, size - offset))
        except OSError:
            return None
        _touch(path)
        return found

    def _store(self, key: str, size: int, fetch: Callable[[], Iterable[bytes]]) -> None:
        if self._stopped or _on_disk(size) > self.size_bytes:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._reserved(path, size)
            try:
                with unfinished.open("r+b") as file:
                    _write(file, fetch())
                unfinished.replace(path)
                _touch(path)
            finally:
                _remove(unfinished)
        except FileNotFoundError:
            return  # it took so long that others have made room where it was
        except OSError as error:
            self._stop(error)

    def _reserved(self, path: Path, size: int) -> Path:
        """A file as long as an entry will be, which others count from now on; it has room."""
        with self._lock():
            taken = self._noted()
            if taken + _on_disk(size) > self.size_bytes:
                taken = self._make_room(_on_disk(size))
            if taken + _on_disk(size) > self.size_bytes:
                raise PermissionError(errno.EACCES, "what others stored there cannot be removed")
            self._note(taken + _on_disk(size))  # first: a kill right here must not leave a file that nobody counts
            number, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
            os.close(number)
            try:
                os.truncate(name, size + _CRC_BYTES)
            except OSError:
                _remove(Path(name))
                raise
        return Path(name)

    def _make_room(self, size: int) -> int:
        """Removes what was not used for longest until `size` more bytes fit; returns how many are left."""
        entries = sorted(self._entries())
        taken = sum(entry_size for _, entry_size, _ in entries)
        most = min(self.size_bytes * _KEPT, self.size_bytes - size)
        for _, entry_size, path in entries:
            if taken <= most:
                break
            if _remove(path):
                taken -= entry_size
        return taken

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """When it was last used (ns), size on disk, and path of everything that is there, finished or not."""
        for path in self.folder.glob("??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            yield stat.st_mtime_ns, _on_disk(stat.st_size - _CRC_BYTES), path

    def _noted(self) -> int:
        """How many bytes are taken: never less than it is, more where files were removed or never finished."""
        try:
            return int((self.folder / "taken").read_text())
        except (FileNotFoundError, ValueError):
            return sum(size for _, size, _ in self._entries())

    def _note(self, taken: int) -> None:
        # In place, always as long: to make a file anew costs a wait for the disk on some file systems.
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

    def _stop(self, error: OSError) -> None:
        if not self._stopped:
            self._stopped.fill_(True)
            reason = error.strerror or str(error)
            self.say(f"{self.folder}: the cache cannot be written ({reason}); going on without storing more in it")


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


def _on_disk(size: int) -> int:
    """Bytes of a disk that an entry of so many bytes takes."""
    return -(-(size + _CRC_BYTES) // _BLOCK_BYTES) * _BLOCK_BYTES


def _remove(path: Path) -> bool:
    """Removes a file if it is there; whether it is gone. One that stays does no harm, beside taking room."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _touch(path: Path) -> None:
    """Notes that an entry was used, where that can be noted: an entry may be gone again, or the folder read-only."""
    try:
        now = time.time_ns()  # finer than what the file system takes for now
        os.utime(path, ns=(now, now))
    except OSError:
        return
