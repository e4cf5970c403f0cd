"""Where the files of a store of shards lie: a folder here, something far away elsewhere."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from imagier.data.sources.source import one_line
from imagier.errors import UserError

MOST_OPEN = 32
"""Files that a process keeps open; a limit of 1,024 is common, and a run has several workers."""


class ShardFiles(Protocol):
    """Files of a flat folder, of which parts can be read. Goes to other processes by fork and by pickle."""

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        ...

    def size(self, name: str) -> int:
        """Bytes of a file, as it was when the names were listed."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """The bytes of a part of a file, fewer where it ends. UserError if they cannot be had."""
        ...

    def where(self, name: str) -> str:
        """What to call a file in a message; the folder for ""."""
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
            raise UserError(str(error.strerror), where=self.root, advice="check `roots` in the data section") from error
        self._sizes = dict(sorted(sizes.items()))

    def names(self) -> list[str]:
        return list(self._sizes)

    def size(self, name: str) -> int:
        return self._sizes[name]

    def read(self, name: str, offset: int, length: int) -> bytes:
        try:
            file = self._file(name)  # held here: another thread may make room, and files close when nobody holds them
            parts: list[bytes] = []
            while length > 0:  # a call of the system brings 2 GiB at most
                # A part is read by its place, without a position that processes or threads could share.
                parts.append(os.pread(file.fileno(), length, offset))
                if not parts[-1]:
                    break
                length, offset = length - len(parts[-1]), offset + len(parts[-1])
            return b"".join(parts)
        except OSError as error:
            raise UserError(str(error.strerror), where=self.where(name)) from error

    def where(self, name: str) -> str:
        return one_line(str(self.root / name))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _file(self, name: str) -> BinaryIO:
        file = self._open.pop(name, None) or (self.root / name).open("rb", buffering=0)
        self._open[name] = file
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return file
