"""The index of a set of shards: where each file lies. Read from the headers of the archives, or from index.npz."""

from __future__ import annotations

import io
import tarfile
import tokenize
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter

from imagier.data.sources.keys import Keys
from imagier.data.sources.shard_files import ShardFiles
from imagier.data.sources.shard_names import COMPRESSED, INDEX, SHARD, parse_member
from imagier.data.sources.source import find_bad_key, is_metadata, one_line
from imagier.errors import UserError

_FORMAT = 1
_BUFFER_BYTES = 2**18
_LONGEST_HEADER_BYTES = 2**20
"""A header holds a name and times. A larger one is an attempt to fill the memory."""

_NOT_AN_INDEX = (
    *(ValueError, TypeError, LookupError, EOFError, MemoryError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, SyntaxError, tokenize.TokenError),
)
"""What zipfile and numpy raise for a file that is damaged or malicious."""

_REMOVE = "make the shard again without it"

_Size = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class _Header:
    """What index.npz holds besides arrays: the sizes of the shards, and the number of each field's block of keys."""

    format: int
    shards: dict[str, _Size]
    fields: dict[str, _Size]


_HEADER = TypeAdapter(_Header)


@dataclass(frozen=True)
class Members:
    """All files of one field, in the order of the shards: file i is `length[i]` bytes at `offset[i]` of `shard[i]`."""

    keys: Keys
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray

    def select(self, indices: np.ndarray) -> Members:
        """Some of them, in the order of `indices`."""
        keys = Keys(self.keys[i] for i in indices.tolist())
        return Members(keys, self.shard[indices], self.offset[indices], self.length[indices])


def merge_members(parts: Sequence[Members]) -> Members:
    """All members of several fields, in the order of the shards."""
    keys = Keys(key for part in parts for key in part.keys)
    numbers = (np.concatenate([getattr(part, name) for part in parts]) for name in ("shard", "offset", "length"))
    merged = Members(keys, *numbers)
    return merged.select(np.lexsort((merged.offset, merged.shard)))


@dataclass(frozen=True)
class ShardIndex:
    """The sizes of all shards of a folder by name, and the members of each field ("images.jpg")."""

    shards: dict[str, int]
    fields: dict[str, Members]

    def dump(self) -> bytes:
        """The bytes of index.npz."""
        blocks: list[Keys] = []  # paired types have the same keys, which are written once
        arrays: dict[str, np.ndarray] = {}
        fields = {}
        for number, (field, members) in enumerate(self.fields.items()):
            same = (i for i, keys in enumerate(blocks) if keys is members.keys)
            fields[field] = next(same, len(blocks))
            if fields[field] == len(blocks):
                arrays[f"keys{len(blocks)}"] = np.frombuffer(members.keys.text, np.uint8)
                arrays[f"ends{len(blocks)}"] = members.keys.ends
                blocks.append(members.keys)
            for name in ("shard", "offset", "length"):
                arrays[f"{name}{number}"] = getattr(members, name)
        header = _HEADER.dump_json(_Header(_FORMAT, self.shards, fields))
        file = io.BytesIO()
        np.savez(file, header=np.frombuffer(header, np.uint8), **arrays)  # type: ignore[arg-type]
        return file.getvalue()


def load_index(files: ShardFiles) -> ShardIndex:
    """The index of all shards of a folder: from index.npz if it is that of these shards, else from their headers.

    UserError if there are no shards, or if an archive is damaged or holds links or devices.
    """
    shards = {name: files.size(name) for name in files.names() if name.endswith(SHARD) and not is_metadata(name)}
    if not shards:
        compressed = [name for name in files.names() if name.endswith(COMPRESSED)]
        advice = f"{compressed[0]} is compressed; unpack the shards (gunzip, unxz)" if compressed else "check `roots`"
        raise UserError(f"holds no {SHARD} file", where=files.where(""), advice=advice, code="no-shards")
    return _load_stored(files, shards) or _scan_shards(files, shards)


def _load_stored(files: ShardFiles, shards: Mapping[str, int]) -> ShardIndex | None:
    """The index from index.npz; None if there is none, if it is damaged, or if it is that of other shards."""
    if INDEX not in files.names():
        return None
    data = files.read(INDEX, 0, files.size(INDEX))
    try:
        found = _parse_index(data)
    except _NOT_AN_INDEX:
        return None
    return found if found.shards == shards else None


def _parse_index(data: bytes) -> ShardIndex:
    """Raises one of _NOT_AN_INDEX unless `dump` wrote it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed, so it may be of any size")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = _HEADER.validate_json(arrays["header"].tobytes())
        if header.format != _FORMAT:
            raise ValueError("another version")
        blocks = [
            Keys.from_block(arrays[f"keys{i}"].tobytes(), arrays[f"ends{i}"]) for i in sorted({*header.fields.values()})
        ]
        fields = {
            field: Members(blocks[block], *(arrays[f"{name}{number}"] for name in ("shard", "offset", "length")))
            for number, (field, block) in enumerate(header.fields.items())
        }
    sizes = np.array(list(header.shards.values()), np.int64)
    for members in fields.values():
        _check_bounds(members, sizes)
    if any(find_bad_key(keys) is not None for keys in blocks):
        raise ValueError("bad keys")
    return ShardIndex(header.shards, fields)


def _check_bounds(members: Members, sizes: np.ndarray) -> None:
    """ValueError unless every member lies within its shard."""
    for numbers in (members.shard, members.offset, members.length):
        if numbers.shape != (len(members.keys),) or numbers.dtype.kind != "i" or (numbers < 0).any():
            raise ValueError("not indices")
    if (members.shard >= len(sizes)).any() or (members.length > sizes[members.shard] - members.offset).any():
        raise ValueError("outside its shard")


def _scan_shards(files: ShardFiles, shards: Mapping[str, int]) -> ShardIndex:
    """The index from the headers of all archives."""
    keys: dict[str, list[str]] = defaultdict(list)
    locations: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for number, name in enumerate(shards):
        for member, offset, length in _scan_shard(files, name):
            try:
                found = parse_member(member)
            except ValueError as error:
                what = f"member {one_line(member)!r} is no path within the archive, or not UTF-8"
                raise UserError(what, where=files.where(name), advice=_REMOVE, code="unsafe-member") from error
            if found is not None:
                key, field = found
                keys[field].append(key)
                locations[field].append((number, offset, length))
    fields = {}
    blocks: dict[tuple[str, ...], Keys] = {}
    for field in keys:
        table = np.array(locations.pop(field), np.int64)
        block = blocks.setdefault(tuple(keys[field]), Keys(keys[field]))
        fields[field] = Members(block, table[:, 0].astype(np.int32), table[:, 1].copy(), table[:, 2].copy())
        repeated = block.find_repeated()
        if repeated is not None:
            what = f"{one_line(repeated)}.{field} is there twice, in one shard or in two"
            advice = "give every sample a name of its own"
            raise UserError(what, where=files.where(""), advice=advice, code="repeated-key")
    return ShardIndex(dict(shards), fields)


def _scan_shard(files: ShardFiles, name: str) -> Iterator[tuple[str, int, int]]:
    """Name, offset and length of the plain files in a tar archive. Reads only the headers.

    UserError if the archive is damaged or cut off, or holds links or devices.
    """
    where = files.where(name)
    reader = _HeaderReader(files, name)
    try:
        with tarfile.open(fileobj=reader, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or it collects all of them
                if member.size < 0 or member.offset_data + member.size > files.size(name):
                    raise tarfile.ReadError("a member is larger than the archive")
                if member.isfile() and not member.issparse():
                    yield member.name, member.offset_data, member.size
                elif not member.isdir():
                    what = f"member {one_line(member.name)!r} is a link or a device, not a plain file"
                    raise UserError(what, where=where, advice=_REMOVE, code="unsafe-member")
            reader.seek(tar.offset)
            if any(reader.read(tarfile.BLOCKSIZE)) or tar.offset + tarfile.BLOCKSIZE > files.size(name):
                raise tarfile.ReadError("no end")
    except UserError:
        raise
    except (tarfile.TarError, ValueError, RecursionError, OverflowError) as error:
        what = f"damaged or cut off ({error})"
        raise UserError(what, where=where, advice="make or copy it again", code="damaged-shard") from error


class _HeaderReader(io.BufferedReader):
    """A shard as a file for tarfile, which reads no more than a header at a time."""

    def __init__(self, files: ShardFiles, name: str) -> None:
        super().__init__(_Raw(files, name), _BUFFER_BYTES)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return super().read(size)


class _Raw(io.RawIOBase):
    def __init__(self, files: ShardFiles, name: str) -> None:
        super().__init__()
        self.files = files
        self.name = name
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.position = offset + (0, self.position, self.files.size(self.name))[whence]
        return self.position

    def readinto(self, buffer: Any, /) -> int:
        data = self.files.read(self.name, self.position, len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)
