"""Samples in LMDB, in the reference's layout: an environment per input type, and lists of the files next to them."""

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
from imagier.data.sources.source import one_line, read_if_there, whole_sequence
from imagier.errors import UserError

DATA = "data.mdb"
_ADVICE = "the store is damaged, or was never finished: build it again (`imagier data build lmdb`)"


def import_lmdb() -> ModuleType:
    """The package lmdb. UserError if it is not installed."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        what, advice = "the package lmdb is not installed", "run: pip install 'imagier[lmdb]'"
        raise UserError(what, where="LMDB", advice=advice, code="not-installed") from error
    return lmdb


class LmdbSource:
    """Values under the keys `sequence/name` in root/type/data.mdb. root/all_filenames.json lists them.

    root/metadata.json has the extensions; those of the config do not count.
    """

    def __init__(self, root: str | Path, extensions: Mapping[str, str]) -> None:
        """extensions: its keys are the input types that will be read. UserError if one is missing or incomplete."""
        self.root = Path(root)
        where = one_line(str(self.root))
        filenames, metadata = self._read_list(FILENAMES), self._read_list(METADATA)
        self._keys, self.extensions = read_index(filenames, metadata, extensions.keys(), where, _ADVICE)
        self._environments = {input_type: _get_environment(self.root / input_type) for input_type in extensions}
        for input_type, environment in self._environments.items():
            environment.check(self._keys[input_type])

    def keys(self, input_type: str) -> list[str]:
        return list(self._keys[input_type])

    def shards(self, input_type: str) -> list[int]:
        return [len(self._keys[input_type])]

    def read(self, input_type: str, key: str) -> bytes:
        environment = self._environments[input_type]
        data = environment.get(key)
        if data is None and key != whole_sequence(key):
            data = environment.get(whole_sequence(key))
        if data is None:
            what, where = f"no such entry, though {FILENAMES} may list it", self.where(input_type, key)
            raise UserError(what, where=where, advice=_ADVICE, code="missing-file")
        return data

    def open(self, input_type: str, key: str) -> BinaryIO:
        return io.BytesIO(self.read(input_type, key))

    def mtime_ns(self, input_type: str, key: str) -> int:
        return self._environments[input_type].mtime_ns()

    def where(self, input_type: str, key: str) -> str:
        return one_line(f"{self.root / input_type / DATA}[{key}]")

    def read_beside(self, name: str) -> bytes | None:
        return read_if_there(self.root / name)

    def extension(self, input_type: str) -> str:
        return self.extensions[input_type].lower()

    def _read_list(self, name: str) -> bytes:
        data = self.read_beside(name)
        if data is None:
            where = one_line(str(self.root))
            raise UserError(f"no {name}: no LMDB store", where=where, advice=_ADVICE, code="missing-index")
        return data


class _Environment:
    """An LMDB environment. Every process opens a handle of its own when it first reads.

    Reading locks and writes nothing, so the file system may be read-only.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._handle: Any = None
        self._owner = 0
        """The process that opened the handle."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[str], _Environment], tuple[str]]:
        return _get_environment, (self.folder,)

    def get(self, key: str) -> bytes | None:
        """The value of a key; None if there is none."""
        lmdb = import_lmdb()
        if self._owner != os.getpid():
            with self._lock:
                if self._owner != os.getpid():
                    self._handle = self._open(lmdb)
                    self._owner = os.getpid()
        try:
            with self._handle.begin(buffers=True) as transaction:
                found = transaction.get(key.encode())
                return None if found is None else bytes(found)
        except lmdb.BadValsizeError:  # longer than any key in it
            return None
        except lmdb.Error as error:
            raise UserError(str(error), where=self._where(), advice=_ADVICE, code="damaged-lmdb") from error

    def check(self, keys: Keys) -> None:
        """UserError if the file was cut off or has fewer entries than there are keys."""
        lmdb = import_lmdb()
        with self._lock:
            is_open = self._owner == os.getpid()
            handle = self._handle if is_open else self._open(lmdb)
            stat = handle.stat()
            entries, needed = stat["entries"], stat["psize"] * (handle.info()["last_pgno"] + 1)
            if not is_open:
                handle.close()  # a child that is forked later must not inherit it
        size = Path(self.folder, DATA).stat().st_size
        if size < needed:  # reading the missing part would kill the process
            what = f"cut off, has {size:,} of {needed:,} bytes"
            raise UserError(what, where=self._where(), advice=_ADVICE, code="damaged-lmdb")
        if entries < len(keys) and entries < len({whole_sequence(key) for key in keys}):
            what = f"has {entries:,} entries, {FILENAMES} lists {len(keys):,}"
            raise UserError(what, where=self._where(), advice=_ADVICE, code="missing-file")

    def mtime_ns(self) -> int:
        """When the file was last modified. UserError if it is gone."""
        try:
            return Path(self.folder, DATA).stat().st_mtime_ns
        except OSError as error:
            what = str(error.strerror)
            raise UserError(what, where=self._where(), advice=_ADVICE, code="unreadable-file") from error

    def _open(self, lmdb: ModuleType) -> Any:
        if self._handle is not None:
            self._handle.close()  # inherited from the parent process
            self._handle = None
        try:
            return lmdb.open(self.folder, readonly=True, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            reason = error if Path(self.folder, DATA).is_file() else "no such file"
            what = f"cannot be opened ({reason})"
            raise UserError(what, where=self._where(), advice=_ADVICE, code="damaged-lmdb") from error

    def _where(self) -> str:
        return one_line(f"{self.folder}/{DATA}")


_ENVIRONMENTS: WeakValueDictionary[tuple[str, int], _Environment] = WeakValueDictionary()
"""A process must not open an LMDB file twice, so sources of one root (training, validation) share its environment."""


def _get_environment(folder: str | Path) -> _Environment:
    """The environment of a folder: one per process, whatever path leads to it."""
    path = os.path.realpath(folder)
    try:
        file_id = path, Path(path, DATA).stat().st_ino  # a file that replaced it is another environment
    except OSError as error:
        what, where = str(error.strerror), f"{one_line(path)}/{DATA}"
        raise UserError(what, where=where, advice=_ADVICE, code="unreadable-file") from error
    found = _ENVIRONMENTS.get(file_id)
    if found is None:
        found = _ENVIRONMENTS[file_id] = _Environment(path)
    return found
