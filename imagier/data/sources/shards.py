"""Samples in tar archives, in webdataset's format, with random access to their members."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from typing import BinaryIO

import numpy as np

from imagier.data.sources.shard_files import ShardFiles
from imagier.data.sources.shard_index import Members, load_index, merge_members
from imagier.data.sources.shard_names import member_name
from imagier.data.sources.source import describe_unused, is_same_format, one_line
from imagier.errors import UserError

logger = logging.getLogger(__name__)


class ShardsSource:
    """Members `sequence/name.type.ext` of all archives of a folder, which come in the order of their names.

    Members `sequence/name.ext` are read too, if only one input type has that extension.
    """

    def __init__(self, files: ShardFiles, extensions: Mapping[str, str]) -> None:
        """extensions: by input type, the expected ones; a type whose members all have another one is read as well.

        UserError if an archive is damaged, or if it is not clear which members belong to an input type.
        """
        self.files = files
        index = load_index(files)
        self._shards = list(index.shards)
        self._fields = {name: _find_field(name, extensions, index.fields, files.where("")) for name in extensions}
        self._spellings: dict[str, dict[str, str]] = {}
        """By input type: the fields of the keys whose field is spelled in another way."""
        self._members = {name: self._gather(name, index.fields) for name in extensions}

    def keys(self, input_type: str) -> list[str]:
        return list(self._members[input_type].keys)

    def shards(self, input_type: str) -> list[int]:
        counts = np.bincount(self._members[input_type].shard, minlength=len(self._shards))
        return [int(count) for count in counts if count]

    def read(self, input_type: str, key: str) -> bytes:
        members = self._members[input_type]
        index = members.keys.find(key)
        if index is None:
            where = self.where(input_type, key)
            raise UserError("no such member", where=where, advice="make the shards again", code="missing-file")
        shard, offset, length = (int(numbers[index]) for numbers in (members.shard, members.offset, members.length))
        data = self.files.read(self._shards[shard], offset, length)
        if len(data) < length:
            where = self.where(input_type, key)
            raise UserError("the shard was cut off", where=where, advice="make or copy it again", code="damaged-shard")
        return data

    def open(self, input_type: str, key: str) -> BinaryIO:
        return io.BytesIO(self.read(input_type, key))

    def mtime_ns(self, input_type: str, key: str) -> int:
        return 0

    def where(self, input_type: str, key: str) -> str:
        members = self._members[input_type]
        index = members.keys.find(key)
        shard = "*.tar" if index is None else self._shards[int(members.shard[index])]
        field = self._spellings[input_type].get(key) or self._fields[input_type]
        return f"{self.files.where(shard)}[{one_line(member_name(key, field))}]"

    def read_beside(self, name: str) -> bytes | None:
        return self.files.read(name, 0, self.files.size(name)) if name in self.files.names() else None

    def extension(self, input_type: str) -> str:
        return self._fields[input_type].rpartition(".")[2].lower()

    def _gather(self, input_type: str, fields: Mapping[str, Members]) -> Members:
        """The members of a type, also those whose extension is another spelling; logs which are left."""
        first = self._fields[input_type]
        of_type, _, ext = first.rpartition(".")
        found, unused, spellings = [fields[first]], Counter[str](), self._spellings.setdefault(input_type, {})
        for field, members in sorted(fields.items()):
            its_type, _, its_ext = field.rpartition(".")
            if field == first or its_type != of_type:
                continue
            if not is_same_format(its_ext, ext):
                unused[its_ext] += len(members.keys) if of_type else 0  # without a type it is that of another one
                continue
            new = np.array([key not in spellings and found[0].keys.find(key) is None for key in members.keys], bool)
            spellings |= {key: field for key, is_new in zip(members.keys, new) if is_new}
            found.append(members.select(np.flatnonzero(new)))
        line = describe_unused(self.files.where(""), input_type, ext, unused)
        if line is not None:
            logger.warning(line)
        return found[0] if len(found) == 1 else merge_members(found)


def _find_field(input_type: str, extensions: Mapping[str, str], fields: Collection[str], where: str) -> str:
    """Which of the fields of all members is that of an input type: "images.jpg", or "jpg"."""
    plain = extensions[input_type]
    expected = f"{input_type}.{plain}"
    if expected in fields:
        return expected
    of_type = [field for field in fields if field.rpartition(".")[0] == input_type]
    if of_type and all(is_same_format(field.rpartition(".")[2], of_type[0].rpartition(".")[2]) for field in of_type):
        return of_type[0]
    same = [field for field in of_type if is_same_format(field.rpartition(".")[2], plain)]
    if same:
        return same[0]
    if not of_type and plain in fields and Counter(extensions.values())[plain] == 1:
        return plain
    reason = (
        f"several types have the extension {plain}" if plain in fields else f"no member ends in .{expected} or .{plain}"
    )
    advice = f"the members end in: {one_line(', '.join(sorted(fields))) or 'nothing that could be a sample'}"
    raise UserError(f"{reason}, input type {input_type!r}", where=where, advice=advice, code="missing-input-type")
