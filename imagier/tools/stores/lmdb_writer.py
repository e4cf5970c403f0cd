"""Writes LMDB in the reference's layout."""

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
"""Set when LMDB is compiled; others than this are rare."""


class LmdbWriter:
    """One environment a type, filled type after type, in transactions of some size."""

    store = "lmdb"

    def __init__(self, folder: Path, plan: Plan, *, commit_files: int = COMMIT_FILES) -> None:
        """folder: an empty one, or what a writer of the same plan left. UserError if LMDB cannot hold a key."""
        self.folder = folder
        self.plan = plan
        self.settings = self.store
        self.commit_files = commit_files
        self._lmdb = import_lmdb()
        self._kind = ""
        self._environment: Any = None
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        for keys in plan.keys.values():
            for key in keys:
                if len(key) > _LONGEST_KEY_BYTES // 4 and len(key.encode()) > _LONGEST_KEY_BYTES:
                    what = f"longer than LMDB's keys may be ({_LONGEST_KEY_BYTES} bytes)"
                    raise UserError(str(what), where=one_line(key), advice="shorten it, or build shards")

    def order(self, start: int) -> Iterator[tuple[str, str]]:
        return self.plan.by_type(start)

    def kept(self, records: np.ndarray) -> int | None:
        with self._told():
            entries = [self._entries(kind) for kind in self.plan.keys]
        self.close()
        done = rest = sum(entries)
        for keys, there in zip(self.plan.keys.values(), entries):
            if there != min(len(keys), rest):
                return None
            rest -= there
        return done if done <= len(records) else None

    def is_due(self, kind: str) -> bool:
        is_much = self._pending_bytes >= COMMIT_BYTES or len(self._pending) >= self.commit_files
        return bool(self._pending) and (is_much or kind != self._kind)

    def add(self, kind: str, key: str, data: bytes) -> int:
        if kind != self._kind:
            with self._told():
                self._open(kind)
        self._pending.append((key.encode(), data))
        self._pending_bytes += len(data)
        return 0

    def commit(self) -> None:
        while self._pending:
            try:
                with self._told(), self._environment.begin(write=True) as transaction:
                    for key, data in self._pending:
                        transaction.put(key, data)
                self._pending, self._pending_bytes = [], 0
            except self._lmdb.MapFullError:  # nobody knows beforehand how much the pages take
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        self._environment, self._kind = None, ""

    def finish(self) -> Source:
        self.close()
        sequences: dict[str, Any] = {kind: self.plan.sequences(kind) for kind in self.plan.keys}
        if self.plan.paired:
            sequences = next(iter(sequences.values()))
        for name, text in reversed(dump_index(sequences, self.plan.extensions).items()):  # the list of files last
            (self.folder / name).write_text(text, encoding="utf-8")
        return LmdbSource(self.folder, self.plan.extensions)

    def _entries(self, kind: str) -> int:
        if not (self.folder / kind / DATA).is_file():
            return 0
        try:
            self._open(kind)
        except self._lmdb.InvalidError:  # the disk was full before its first pages were written
            shutil.rmtree(self.folder / kind)
            return 0
        return self._environment.stat()["entries"]

    def _open(self, kind: str) -> None:
        self.close()
        (self.folder / kind).mkdir(exist_ok=True)
        # Nobody else is here, and to write to LMDB's file of locks would end the process where the disk is full.
        self._environment = self._lmdb.open(str(self.folder / kind), map_size=_FIRST_MAP_BYTES, lock=False)
        self._kind = kind

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What LMDB says of the disk, as any other file would say it."""
        try:
            yield
        except self._lmdb.MapFullError:
            raise
        except self._lmdb.Error as error:
            # LMDB calls it an input/output error if half of a page could be written.
            is_full = shutil.disk_usage(self.folder).free < max(self._pending_bytes, _SPARE_BYTES)
            told = (errno.ENOSPC, os.strerror(errno.ENOSPC)) if is_full else (errno.EIO, str(error))
            raise OSError(*told) from error
