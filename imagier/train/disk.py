"""Files that are complete or do not exist, on a disk that may be full, slow, or gone."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_TEMPORARY = re.compile(r"(\..+\.)\d+\.tmp")
LONGEST_NAME = 255
"""Bytes in the name of a file, as most file systems have it."""

MOST_WAITING_BYTES = 64 * 2**20
"""More than this does not wait for a disk that fails."""

_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)


@contextlib.contextmanager
def write_atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write. It replaces `path` once it is complete and on the disk; if that fails, `path` stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{name_temporary(path.name)}{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the folder may have become read-only: the next start removes the file
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


class AppendFile:
    """A file that grows by whole pieces. Those that cannot be written (OSError) wait, and go before the next one.

    If too much waits, the oldest pieces are lost, but for the very first: it may be the beginning.
    """

    def __init__(self, path: Path, beginning: bytes = b"") -> None:
        """The file is opened, and its folder made, when something is written. beginning: what goes first."""
        self.path = path
        self._file: IO[bytes] | None = None
        self._size = 0
        self._waiting = deque([beginning])

    def append(self, piece: bytes) -> None:
        """Writes everything that waits, and then this, until the disk fails."""
        self._waiting.append(piece)
        while len(self._waiting) > 2 and sum(map(len, self._waiting)) > MOST_WAITING_BYTES:
            del self._waiting[1]
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
        while self._waiting:
            left = memoryview(self._waiting[0])
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                os.truncate(self._file.fileno(), self._size)
                raise
            self._size += len(self._waiting.popleft())

    def close(self) -> None:
        """Writes what waits; if that fails (OSError), it is lost."""
        try:
            self.append(b"")
        finally:
            if self._file is not None:
                self._file.close()


def shorten_name(name: str, most_bytes: int = LONGEST_NAME) -> str:
    """A name of at most so many bytes: a longer one keeps its beginning and its suffix, and gets a hash."""
    encoded = os.fsencode(name)
    if len(encoded) <= most_bytes:
        return name
    suffix = os.fsencode(Path(name).suffix[:16])
    end = b"~" + hashlib.sha256(encoded).hexdigest()[:10].encode() + suffix
    return encoded[: most_bytes - len(end)].decode("utf-8", "ignore") + end.decode("utf-8", "ignore")


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Removes the files that a process left in a folder when it was killed inside `write_atomic`.

    name: of the file that it was to be; empty: of any. No other process may be writing it.
    """
    for path in folder.glob(f".{glob.escape(name)}*.tmp"):
        if _TEMPORARY.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def find_temporaries(folder: Path) -> dict[str, list[Path]]:
    """What `write_atomic` writes in a folder, or left there when it was killed, by `name_temporary` of the files."""
    found: dict[str, list[Path]] = {}
    for path in folder.glob(".*.tmp"):
        if match := _TEMPORARY.fullmatch(path.name):
            found.setdefault(match[1], []).append(path)
    return found


def name_temporary(name: str) -> str:
    """What the name of a file, its last part, begins with while it is written, before the number of the process."""
    return f".{shorten_name(name, LONGEST_NAME - 20)}."


def evict_from_cache(path: Path) -> None:
    """Makes the system read a file from the disk the next time, not from its page cache. On Linux only."""
    if sys.platform == "linux":
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def describe_error(error: OSError) -> str:
    """Why the disk failed, in the words of the operating system."""
    return error.strerror or str(error)


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:  # some network file systems can only sync files
            raise
    finally:
        os.close(descriptor)
