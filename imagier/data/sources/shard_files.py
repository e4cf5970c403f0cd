"""The files of a store of shards: in a local folder here, in an object store in remote.py."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from imagier.data.sources.source import one_line
from imagier.errors import UserError, suggest_sibling

MOST_OPEN = 32
"""Files that a process keeps open. A limit of 1,024 is common, and a run has several workers."""


class ShardFiles(Protocol):
    """Files of a flat folder that can be read in parts. Worker processes get it by fork or by pickle."""

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        ...

    def size(self, name: str) -> int:
        """Bytes of a file when the folder was listed."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """A part of a file, fewer bytes at its end. UserError if it cannot be read."""
        ...

    def where(self, name: str) -> str:
        """The name of a file in messages; that of the folder for ""."""
        ...


class LocalFiles:
    """The files of a folder."""

    def __init__(self, root: str | Path) -> None:
        """UserError if the folder cannot be listed."""
        self.root = Path(root)
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()
        try:
            with os.scandir(self.root) as entries:
                sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except OSError as error:
            what, advice = str(error.strerror), suggest_sibling(self.root) or "check `roots` in the data section"
            raise UserError(what, where=self.root, advice=advice, code="unreadable-folder") from error
        self._sizes = dict(sorted(sizes.items()))

    def names(self) -> list[str]:
        return list(self._sizes)

    def size(self, name: str) -> int:
        return self._sizes[name]

    def read(self, name: str, offset: int, length: int) -> bytes:
        try:
            file = self._get_file(name)  # kept in a variable: another thread may evict it, which would close it
            parts: list[bytes] = []
            while length > 0:  # a system call reads at most 2 GiB
                # pread takes the offset: processes and threads share the file's own position.
                parts.append(os.pread(file.fileno(), length, offset))
                if not parts[-1]:
                    break
                length, offset = length - len(parts[-1]), offset + len(parts[-1])
            return b"".join(parts)
        except OSError as error:
            raise UserError(str(error.strerror), where=self.where(name), code="unreadable-file") from error

    def where(self, name: str) -> str:
        return one_line(str(self.root / name))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _get_file(self, name: str) -> BinaryIO:
        file = self._open.pop(name, None) or (self.root / name).open("rb", buffering=0)
        self._open[name] = file
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return file
