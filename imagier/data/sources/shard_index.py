"""Which bytes of which shard are which file: read from the headers of tar archives, kept beside them."""

from __future__ import annotations

import io
import tarfile
import tokenize
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter

from imagier.data.sources.keys import Keys
from imagier.data.sources.shard_files import ShardFiles
from imagier.data.sources.shard_names import COMPRESSED, INDEX, SHARD, key_and_field
from imagier.data.sources.source import one_line, wrong_key
from imagier.errors import UserError

FORMAT = 1
BLOCK_BYTES = tarfile.BLOCKSIZE
_AHEAD_BYTES = 2**18
_LONGEST_HEADER_BYTES = 2**20
"""A member's name and times; an archive that says it has more of them wants to fill the memory."""

_NOT_AN_INDEX = (
    *(ValueError, TypeError, LookupError, EOFError, MemoryError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, SyntaxError, tokenize.TokenError),
)
"""What zipfile and numpy raise for a file that is damaged, or made to do harm."""

_Size = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class _Header:
    """What stands in the file of an index beside the arrays: the sizes of shards, and whose keys a field has."""

    format: int
    shards: dict[str, _Size]
    fields: dict[str, _Size]


_HEADER = TypeAdapter(_Header)


@dataclass(frozen=True)
class Members:
    """All files of one field, in the order of the shards: file i is `length[i]` bytes from `offset[i]` of a shard."""

    keys: Keys
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray


@dataclass(frozen=True)
class ShardIndex:
    """All shards of a folder by name, with their sizes, and the members of each field ("images.jpg")."""

    shards: dict[str, int]
    fields: dict[str, Members]

    def dump(self) -> bytes:
        """As the bytes of a file of numpy's format npz."""
        blocks: list[Keys] = []  # types that belong together have the same keys: they are written once
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
        header = _HEADER.dump_json(_Header(FORMAT, self.shards, fields))
        file = io.BytesIO()
        np.savez(file, header=np.frombuffer(header, np.uint8), **arrays)  # type: ignore[arg-type]
        return file.getvalue()


def index_of(files: ShardFiles) -> ShardIndex:
    """The index of all shards of a folder: that kept there if it is theirs, else made by reading all headers.

    UserError if there are no shards, and for an archive that is damaged or holds what no data set needs.
    """
    shards = {name: files.size(name) for name in files.names() if name.endswith(SHARD)}
    if not shards:
        compressed = [name for name in files.names() if name.endswith(COMPRESSED)]
        why = f"{compressed[0]} is compressed; unpack the shards (gunzip, unxz)" if compressed else "check `roots`"
        raise UserError(f"holds no {SHARD} file", where=files.where(""), advice=why)
    return _kept(files, shards) or _scanned(files, shards)


def _kept(files: ShardFiles, shards: Mapping[str, int]) -> ShardIndex | None:
    """The index that lies beside the shards, if it can be read and is of these shards."""
    if INDEX not in files.names():
        return None
    data = files.read(INDEX, 0, files.size(INDEX))
    try:
        found = _loaded(data)
    except _NOT_AN_INDEX:
        return None
    return found if found.shards == shards else None


def _loaded(data: bytes) -> ShardIndex:
    """One of _NOT_AN_INDEX if it is not what `dump` wrote."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed, and so of any size")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = _HEADER.validate_json(arrays["header"].tobytes())
        if header.format != FORMAT:
            raise ValueError("of another version")
        blocks = [
            Keys.of_block(arrays[f"keys{i}"].tobytes(), arrays[f"ends{i}"]) for i in sorted({*header.fields.values()})
        ]
        fields = {
            field: Members(blocks[block], *(arrays[f"{name}{number}"] for name in ("shard", "offset", "length")))
            for number, (field, block) in enumerate(header.fields.items())
        }
    sizes = np.array(list(header.shards.values()), np.int64)
    for members in fields.values():
        _check_places(members, sizes)
    if any(wrong_key(keys) is not None for keys in blocks):
        raise ValueError("no keys")
    return ShardIndex(header.shards, fields)


def _check_places(members: Members, sizes: np.ndarray) -> None:
    """ValueError unless every member lies within its shard."""
    for numbers in (members.shard, members.offset, members.length):
        if numbers.shape != (len(members.keys),) or numbers.dtype.kind != "i" or (numbers < 0).any():
            raise ValueError("not places")
    if (members.shard >= len(sizes)).any() or (members.length > sizes[members.shard] - members.offset).any():
        raise ValueError("outside of the shard")


def _scanned(files: ShardFiles, shards: Mapping[str, int]) -> ShardIndex:
    """An index from the headers of all archives."""
    keys: dict[str, list[str]] = defaultdict(list)
    places: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for number, name in enumerate(shards):
        for member, offset, length in scan(files, name):
            try:
                found = key_and_field(member)
            except ValueError as error:
                what = f"member {one_line(member)!r} is no path within the archive, or not UTF-8"
                raise UserError(str(what), where=files.where(name), advice="make the shard again without it") from error
            if found is not None:
                key, field = found
                keys[field].append(key)
                places[field].append((number, offset, length))
    fields = {}
    of_block: dict[tuple[str, ...], Keys] = {}
    for field in keys:
        table = np.array(places.pop(field), np.int64)
        block = of_block.setdefault(tuple(keys[field]), Keys(keys[field]))
        fields[field] = Members(block, table[:, 0].astype(np.int32), table[:, 1].copy(), table[:, 2].copy())
        _check_repeated(block, field, files)
    return ShardIndex(dict(shards), fields)


def _check_repeated(keys: Keys, field: str, files: ShardFiles) -> None:
    repeated = keys.first_repeated()
    if repeated is not None:
        what = f"{one_line(repeated)}.{field} is there twice, in one shard or in two"
        raise UserError(str(what), where=files.where(""), advice="give every sample a name of its own")


def scan(files: ShardFiles, name: str) -> Iterator[tuple[str, int, int]]:
    """The plain files of a tar archive: name, place of its bytes, their number. Only headers are read.

    UserError if the archive is damaged or cut off, or holds links or devices.
    """
    where = files.where(name)
    reader = _HeaderReader(files, name)
    try:
        with tarfile.open(fileobj=reader, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                if member.size < 0 or member.offset_data + member.size > files.size(name):
                    raise tarfile.ReadError("a member is larger than the archive")
                if member.isfile() and not member.issparse():
                    yield member.name, member.offset_data, member.size
                elif not member.isdir():
                    what = f"member {one_line(member.name)!r} is a link or a device, not a plain file"
                    raise UserError(str(what), where=where, advice="make the shard again without it")
            reader.seek(tar.offset)
            if any(reader.read(BLOCK_BYTES)) or tar.offset + BLOCK_BYTES > files.size(name):
                raise tarfile.ReadError("no end")
    except UserError:
        raise
    except (tarfile.TarError, ValueError, RecursionError, OverflowError) as error:
        what = f"damaged or cut off ({error})"
        raise UserError(what, where=where, advice="make or copy it again", code="damaged-shard") from error


class _HeaderReader(io.BufferedReader):
    """A shard as a file to read headers from."""

    def __init__(self, files: ShardFiles, name: str) -> None:
        super().__init__(_Raw(files, name), _AHEAD_BYTES)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return super().read(size)


class _Raw(io.RawIOBase):
    def __init__(self, files: ShardFiles, name: str) -> None:
        super().__init__()
        self.files = files
        self.name = name
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.at = offset + (0, self.at, self.files.size(self.name))[whence]
        return self.at

    def readinto(self, buffer: Any, /) -> int:
        data = self.files.read(self.name, self.at, len(buffer))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)
