"""Samples in tar archives, as the library webdataset writes and reads them; any of them can be read by itself."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from imagier.data.sources.shard_files import ShardFiles
from imagier.data.sources.shard_index import Members, index_of
from imagier.data.sources.shard_names import member_name
from imagier.data.sources.source import one_line
from imagier.errors import UserError


class ShardsSource:
    """Members `sequence/name.type.ext` of all archives of a folder, in the order of the archives' names.

    Members `sequence/name.ext` are read too, where one input type alone has that extension.
    """

    def __init__(self, files: ShardFiles, extensions: Mapping[str, str]) -> None:
        """extensions: those that the input types should have; another is taken where there is one of the type alone.

        UserError if an archive is damaged, or if it is not clear which members are a type's.
        """
        self.files = files
        index = index_of(files)
        self._shards = list(index.shards)
        there = list(index.fields)
        self._fields = {kind: _field(kind, extensions, there, files.where("")) for kind in extensions}
        self._members: dict[str, Members] = {kind: index.fields[field] for kind, field in self._fields.items()}

    def keys(self, kind: str) -> list[str]:
        return list(self._members[kind].keys)

    def shards(self, kind: str) -> list[int]:
        counts = np.bincount(self._members[kind].shard, minlength=len(self._shards))
        return [int(count) for count in counts if count]

    def read(self, kind: str, key: str) -> bytes:
        members = self._members[kind]
        place = members.keys.find(key)
        if place is None:
            raise UserError("no such member", where=self.where(kind, key), advice="make the shards again")
        shard, offset, length = (int(numbers[place]) for numbers in (members.shard, members.offset, members.length))
        data = self.files.read(self._shards[shard], offset, length)
        if len(data) < length:
            raise UserError("the shard was cut off", where=self.where(kind, key), advice="make or copy it again")
        return data

    def open(self, kind: str, key: str) -> BinaryIO:
        return io.BytesIO(self.read(kind, key))

    def modified(self, kind: str, key: str) -> int:
        return 0

    def where(self, kind: str, key: str) -> str:
        members = self._members[kind]
        place = members.keys.find(key)
        shard = "*.tar" if place is None else self._shards[int(members.shard[place])]
        return f"{self.files.where(shard)}[{one_line(member_name(key, self._fields[kind]))}]"

    def extension(self, kind: str) -> str:
        return self._fields[kind].rpartition(".")[2].lower()


def _field(kind: str, extensions: Mapping[str, str], there: list[str], where: str) -> str:
    """What stands behind the name of a sample in the members of a type, from all that stands there."""
    of_type = [field for field in there if field.rpartition(".")[0] == kind]
    wanted = f"{kind}.{extensions[kind]}"
    if wanted in of_type:
        return wanted
    if len(of_type) == 1:
        return of_type[0]
    plain = extensions[kind]
    if not of_type and plain in there and Counter(extensions.values())[plain] == 1:
        return plain
    has = one_line(", ".join(sorted(there))) or "nothing that could be a sample"
    why = f"several types have the extension {plain}" if plain in there else f"no member ends in .{wanted} or .{plain}"
    raise UserError(f"{why}, input type {kind!r}", where=where, advice=f"the members end in: {has}")
