"""Samples in LMDB, laid out as the reference's: one environment a type, lists of what is in them beside these."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

from imagier.data.sources.index import FILENAMES, METADATA, read_index
from imagier.data.sources.keys import Keys
from imagier.data.sources.source import one_line, whole_sequence
from imagier.errors import UserError

DATA = "data.mdb"
_MEND = "the store is damaged, or was never finished: build it again (`imagier data build lmdb`)"


def lmdb_package() -> ModuleType:
    """The package lmdb. UserError if it is not installed."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise UserError(
            "the package lmdb is not installed", where="LMDB", advice="run: pip install 'imagier[lmdb]'"
        ) from error
    return lmdb


class LmdbSource:
    """Values under `sequence/name` in root/type/data.mdb, listed in root/all_filenames.json.

    root/metadata.json says of which format the files of each type are, whatever the config says.
    """

    def __init__(self, root: str | Path, extensions: Mapping[str, str]) -> None:
        """extensions: its keys are the types that will be read. UserError if the store lacks one or is not whole."""
        self.root = Path(root)
        where = one_line(str(self.root))
        filenames, metadata = self._list(FILENAMES), self._list(METADATA)
        self._keys, self.extensions = read_index(filenames, metadata, extensions.keys(), where, _MEND)
        self._environments = {kind: _environment(self.root / kind) for kind in extensions}
        for kind, environment in self._environments.items():
            environment.check(self._keys[kind])

    def keys(self, kind: str) -> list[str]:
        return list(self._keys[kind])

    def shards(self, kind: str) -> list[int]:
        return [len(self._keys[kind])]

    def read(self, kind: str, key: str) -> bytes:
        environment = self._environments[kind]
        data = environment.get(key)
        if data is None and key != whole_sequence(key):
            data = environment.get(whole_sequence(key))
        if data is None:
            raise UserError(f"no such entry, though {FILENAMES} may list it", where=self.where(kind, key), advice=_MEND)
        return data

    def open(self, kind: str, key: str) -> BinaryIO:
        return io.BytesIO(self.read(kind, key))

    def modified(self, kind: str, key: str) -> int:
        return self._environments[kind].modified()

    def where(self, kind: str, key: str) -> str:
        return one_line(f"{self.root / kind / DATA}[{key}]")

    def extension(self, kind: str) -> str:
        return self.extensions[kind].lower()

    def _list(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"no {name}: no LMDB store", where=one_line(str(self.root)), advice=_MEND) from error
        except OSError as error:
            raise UserError(str(error.strerror), where=one_line(str(self.root / name))) from error


class _Environment:
    """One LMDB environment, open in any number of processes, in each by its own handle from the first read on.

    Nothing is locked and nothing is written, so it can lie on a file system that is read-only.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._handle: Any = None
        self._owner = 0
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[str], _Environment], tuple[str]]:
        return _environment, (self.folder,)

    def get(self, key: str) -> bytes | None:
        """The value under a key, None if there is none."""
        lmdb = lmdb_package()
        if self._owner != os.getpid():
            self._open(lmdb)
        try:
            with self._handle.begin(buffers=True) as transaction:
                found = transaction.get(key.encode())
                return None if found is None else bytes(found)
        except lmdb.BadValsizeError:  # no key is so long
            return None
        except lmdb.Error as error:
            raise UserError(str(error), where=self._where(), advice=_MEND) from error

    def check(self, keys: Keys) -> None:
        """UserError unless the file is whole and has as many entries as there are keys."""
        lmdb = lmdb_package()
        with self._opening:
            in_use = self._owner == os.getpid()
            handle = self._handle if in_use else self._opened(lmdb)
            stat = handle.stat()
            entries, needed = stat["entries"], stat["psize"] * (handle.info()["last_pgno"] + 1)
            if not in_use:
                handle.close()  # what a process opened before it forked, its children had better not have
        size = Path(self.folder, DATA).stat().st_size
        if size < needed:  # to read what is missing would end the process
            raise UserError(f"cut off, has {size:,} of {needed:,} bytes", where=self._where(), advice=_MEND)
        if entries < len(keys) and entries < len({whole_sequence(key) for key in keys}):
            raise UserError(
                f"has {entries:,} entries, {FILENAMES} lists {len(keys):,}", where=self._where(), advice=_MEND
            )

    def modified(self) -> int:
        """When the file was last written, in ns. UserError if it is gone."""
        try:
            return Path(self.folder, DATA).stat().st_mtime_ns
        except OSError as error:
            raise UserError(str(error.strerror), where=self._where(), advice=_MEND) from error

    def _open(self, lmdb: ModuleType) -> None:
        with self._opening:
            if self._owner == os.getpid():
                return
            self._handle = self._opened(lmdb)
            self._owner = os.getpid()

    def _opened(self, lmdb: ModuleType) -> Any:
        if self._handle is not None:
            self._handle.close()  # the copy of another process's handle
            self._handle = None
        try:
            return lmdb.open(self.folder, readonly=True, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            why = "no such file" if not Path(self.folder, DATA).is_file() else error
            raise UserError(f"cannot be opened ({why})", where=self._where(), advice=_MEND) from error

    def _where(self) -> str:
        return one_line(f"{self.folder}/{DATA}")


_IN_USE: WeakValueDictionary[tuple[str, int], _Environment] = WeakValueDictionary()
"""LMDB forbids a process to open one file twice, so training and validation sets of one root must share it."""


def _environment(folder: str | Path) -> _Environment:
    """The environment of a folder, the same for all who ask for it under whatever name."""
    path = os.path.realpath(folder)
    try:
        identity = path, Path(path, DATA).stat().st_ino  # another file under the same name is another environment
    except OSError as error:
        raise UserError(str(error.strerror), where=f"{one_line(path)}/{DATA}", advice=_MEND) from error
    found = _IN_USE.get(identity)
    if found is None:
        found = _IN_USE[identity] = _Environment(path)
    return found
