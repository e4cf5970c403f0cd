"""Writes shards: tar archives of about equal size, and an index of their members."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imagier.data.sources.shard_files import LocalFiles
from imagier.data.sources.shard_index import load_index
from imagier.data.sources.shard_names import INDEX, member_name, parse_member, shard_name
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source, one_line
from imagier.errors import UserError
from imagier.tools.stores.plan import Plan

_UNFINISHED = ".part"


class ShardWriter:
    """Stores the files of a sample next to each other; or type after type, if the types have different keys.

    The same files give the same bytes.
    """

    store = "shards"

    def __init__(self, folder: Path, plan: Plan, *, shard_bytes: int) -> None:
        """folder: empty, or left by a writer of the same plan. shard_bytes: a shard ends after the sample that reaches
        this size. UserError if a key cannot be the name of a tar member."""
        self.folder = folder
        self.plan = plan
        self.settings = f"{self.store} {shard_bytes}"
        self.shard_bytes = shard_bytes
        self.fields = {input_type: f"{input_type}.{ext}" for input_type, ext in plan.extensions.items()}
        self._number = 0
        self._file: BinaryIO | None = None
        self._archive: tarfile.TarFile | None = None
        self._open_type = ""
        self._files = 0
        self._files_of_sample = len(plan.keys) if plan.is_grouped else 1
        for input_type, keys in plan.keys.items():
            for key in keys:
                if parse_member(member_name(key, self.fields[input_type])) != (key, self.fields[input_type]):
                    raise UserError(
                        "cannot be the name of a member of a shard",
                        where=one_line(key),
                        advice="rename it",
                        code="bad-member-name",
                    )

    def iter_files(self, start: int) -> Iterator[tuple[str, str]]:
        return self.plan.iter_by_key(start) if self.plan.is_grouped else self.plan.iter_by_type(start)

    def recover(self, records: np.ndarray) -> int | None:
        for path in self.folder.glob(f"*{_UNFINISHED}"):
            path.unlink()
        while (self.folder / shard_name(self._number)).is_file():
            self._number += 1
        if self._number and (len(records) == 0 or records["shard"][-1] < self._number - 1):
            return None
        return int(np.searchsorted(records["shard"], self._number))

    def should_commit(self, input_type: str) -> bool:
        if self._file is None:
            return False
        is_new_type = not self.plan.is_grouped and input_type != self._open_type
        return is_new_type or (self._files % self._files_of_sample == 0 and self._file.tell() >= self.shard_bytes)

    def add(self, input_type: str, key: str, data: bytes) -> int:
        if self._file is None:
            self._file = (self.folder / f"{shard_name(self._number)}{_UNFINISHED}").open("wb")
            self._archive = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        assert self._archive is not None
        member = tarfile.TarInfo(member_name(key, self.fields[input_type]))
        member.size = len(data)
        self._archive.addfile(member, io.BytesIO(data))
        self._open_type = input_type
        self._files += 1
        return self._number

    def commit(self) -> None:
        if self._file is None or self._archive is None:
            return
        self._archive.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        path = Path(self._file.name)
        path.rename(path.with_suffix(""))
        self._file = self._archive = None
        self._number += 1

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk cannot take the buffered rest either
                self._file.close()
        self._file = self._archive = None

    def finish(self) -> Source:
        (self.folder / INDEX).unlink(missing_ok=True)  # of an earlier try; the index is made from the archives
        index = load_index(LocalFiles(self.folder))
        (self.folder / INDEX).write_bytes(index.dump())
        return ShardsSource(LocalFiles(self.folder), self.plan.extensions)
