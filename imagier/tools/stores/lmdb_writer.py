"""Writes LMDBs in the reference's layout."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from imagier.data.sources.index import dump_index
from imagier.data.sources.lmdb import DATA, LmdbSource, import_lmdb
from imagier.data.sources.source import Source, one_line
from imagier.errors import UserError
from imagier.tools.stores.plan import Plan

COMMIT_BYTES = 2**26
COMMIT_FILES = 2**14
_FIRST_MAP_BYTES = 2**26
_SPARE_BYTES = 2**16
_LONGEST_KEY_BYTES = 511
"""A compile-time constant of LMDB; other values are rare."""


class LmdbWriter:
    """One environment per type, filled type after type, in large transactions."""

    store = "lmdb"

    def __init__(self, folder: Path, plan: Plan, *, commit_files: int = COMMIT_FILES) -> None:
        """folder: empty, or left by a writer of the same plan. UserError if a key is too long for LMDB."""
        self.folder = folder
        self.plan = plan
        self.settings = self.store
        self.commit_files = commit_files
        self._lmdb = import_lmdb()
        self._open_type = ""
        self._environment: Any = None
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        for keys in plan.keys.values():
            for key in keys:
                if len(key) > _LONGEST_KEY_BYTES // 4 and len(key.encode()) > _LONGEST_KEY_BYTES:
                    what = f"longer than LMDB allows ({_LONGEST_KEY_BYTES} bytes)"
                    advice = "shorten it, or build shards"
                    raise UserError(what, where=one_line(key), advice=advice, code="key-too-long")

    def iter_files(self, start: int) -> Iterator[tuple[str, str]]:
        return self.plan.iter_by_type(start)

    def recover(self, records: np.ndarray) -> int | None:
        with self._translate_errors():
            entries = [self._count_entries(input_type) for input_type in self.plan.keys]
        self.close()
        done = rest = sum(entries)
        for keys, there in zip(self.plan.keys.values(), entries):
            if there != min(len(keys), rest):
                return None
            rest -= there
        return done if done <= len(records) else None

    def should_commit(self, input_type: str) -> bool:
        is_large = self._pending_bytes >= COMMIT_BYTES or len(self._pending) >= self.commit_files
        return bool(self._pending) and (is_large or input_type != self._open_type)

    def add(self, input_type: str, key: str, data: bytes) -> int:
        if input_type != self._open_type:
            with self._translate_errors():
                self._open(input_type)
        self._pending.append((key.encode(), data))
        self._pending_bytes += len(data)
        return 0

    def commit(self) -> None:
        while self._pending:
            try:
                with self._translate_errors(), self._environment.begin(write=True) as transaction:
                    for key, data in self._pending:
                        transaction.put(key, data)
                self._pending, self._pending_bytes = [], 0
            except self._lmdb.MapFullError:  # the size of the pages is not known beforehand
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        self._environment, self._open_type = None, ""

    def finish(self) -> Source:
        self.close()
        sequences: dict[str, Any] = {input_type: self.plan.group_sequences(input_type) for input_type in self.plan.keys}
        if self.plan.is_paired:
            sequences = next(iter(sequences.values()))
        # The list of files is written last.
        for name, text in reversed(dump_index(sequences, self.plan.extensions).items()):
            (self.folder / name).write_text(text, encoding="utf-8")
        return LmdbSource(self.folder, self.plan.extensions)

    def _count_entries(self, input_type: str) -> int:
        if not (self.folder / input_type / DATA).is_file():
            return 0
        try:
            self._open(input_type)
        except self._lmdb.InvalidError:  # the disk was full before the first pages were written
            shutil.rmtree(self.folder / input_type)
            return 0
        return self._environment.stat()["entries"]

    def _open(self, input_type: str) -> None:
        self.close()
        (self.folder / input_type).mkdir(exist_ok=True)
        # The build is locked already, and on a full disk writing LMDB's lock file would kill the process.
        self._environment = self._lmdb.open(str(self.folder / input_type), map_size=_FIRST_MAP_BYTES, lock=False)
        self._open_type = input_type

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raises LMDB's errors as the OSError that writing any other file would raise."""
        try:
            yield
        except self._lmdb.MapFullError:
            raise
        except self._lmdb.Error as error:
            # LMDB reports an input/output error if only half of a page could be written.
            is_full = shutil.disk_usage(self.folder).free < max(self._pending_bytes, _SPARE_BYTES)
            details = (errno.ENOSPC, os.strerror(errno.ENOSPC)) if is_full else (errno.EIO, str(error))
            raise OSError(*details) from error
