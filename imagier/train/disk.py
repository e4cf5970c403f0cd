"""Files that are whole or not there at all, on a disk that may be full, slow, or taken away."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
_NO_SUCH_THING = (errno.EINVAL, errno.ENOTSUP)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write; takes the place of `path` once it is written and on the disk, or leaves it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # of a folder that cannot be written to any more: the next start removes it
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Removes what a process that was killed in the middle of `replacing` left in a folder.

    Nobody else may be writing there.
    """
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def forget(path: Path) -> None:
    """Makes the system read a file from the disk the next time, not from memory, where it can be told to (Linux)."""
    if sys.platform == "linux":
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reason(error: OSError) -> str:
    """Why the disk failed, in the system's words."""
    return error.strerror or str(error)


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:  # some network file systems sync files alone
            raise
    finally:
        os.close(descriptor)
