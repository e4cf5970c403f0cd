"""Samples and shards in an object store (S3), with copies on a local disk."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, BinaryIO

from imagier.data.keys import Keys
from imagier.data.source import Source, one_line, whole_sequence, wrong_key
from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.index import FILENAMES, METADATA, Sequences, read_index
from imagier.data.sources.s3 import PATIENCE, Bucket, Listed, Patience, read_credentials
from imagier.data.sources.shards import ShardsSource
from imagier.errors import UserError

SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")


def is_remote(root: str, store: str | None) -> bool:
    """Whether a root is a folder of a bucket. store: the dataset_type of the config."""
    return store == "object_store" or root.startswith(SCHEME)


def open_remote(
    root: str,
    extensions: Mapping[str, str],
    store: str | None,
    *,
    credentials_file: str | None = None,
    cache: DiskCache | None = None,
) -> Source:
    """The store in a folder of a bucket: tar archives if `store` is "shards", else objects in folders.

    root: bucket/folder or s3://bucket/folder. extensions: by input type. credentials_file: as `read_credentials`.
    UserError if it cannot be read.
    """
    credentials = read_credentials(credentials_file) if credentials_file else {}
    folder = S3Folder(root, credentials, cache)
    return ShardsSource(folder, extensions) if store == "shards" else ObjectStoreSource(folder, extensions)


class S3Folder:
    """The objects of a bucket whose keys begin with a path; their names are what comes behind it."""

    def __init__(
        self,
        root: str,
        credentials: Mapping[str, Any],
        cache: DiskCache | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        """root: bucket/path or s3://bucket/path. credentials: as Bucket. UserError if no bucket can be called so."""
        bucket, _, self.path = root.removeprefix(SCHEME).rstrip("/").partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise UserError(f"roots: {root!r} names no bucket; write bucket/folder")
        self.bucket = Bucket(bucket, credentials, patience)
        self.cache = cache
        self._server = self.bucket.endpoint if cache is not None else ""

    def names(self) -> list[str]:
        """All of them, sorted. UserError if there are none."""
        return list(self._listed)

    def size(self, name: str) -> int:
        """Bytes of one that is in `names`."""
        return self._listed[name].size

    def key(self, name: str) -> str:
        """The key of one in the bucket."""
        return posixpath.join(self.path, name)

    def where(self, name: str) -> str:
        """What to call one in a message."""
        return one_line(self.bucket.where(self.key(name)))

    def fetch(self, name: str) -> bytes:
        """All bytes of one: from the cache, or for the cache too."""
        key = self.key(name)
        if self.cache is None:
            return self.bucket.read(key)
        entry = self._entry(key)
        found = self.cache.get(entry)
        if found is None:
            found = self.bucket.read(key)
            self.cache.put(entry, found)
        return found

    def read(self, name: str, offset: int, length: int) -> bytes:
        """A part of one that is in `names`, fewer bytes at its end. With a cache, all of it is fetched at once."""
        key, listed = self.key(name), self._listed[name]
        if self.cache is not None:
            entry = self._entry(f"{key} {listed.version}")
            found = self.cache.part(entry, listed.size, offset, length, lambda: self.bucket.parts(key, listed.size))
            if found is not None:
                return found
        return self.bucket.read(key, offset, length)

    @cached_property
    def _listed(self) -> dict[str, Listed]:
        prefix = self.key("")
        found = {key.removeprefix(prefix): listed for key, listed in self.bucket.list(prefix).items()}
        if not found:
            raise UserError(f"{self.where('')}: no objects there; check `roots`")
        return found

    def _entry(self, key: str) -> str:
        return f"{self._server} {self.bucket.name} {key}"


class ObjectStoreSource:
    """Objects root/type/sequence/name.ext; root/all_filenames.json lists them, root/metadata.json has the extensions.

    Where all sequences are listed with the name of the root in front, as the reference lists those of paired types, it
    is no part of them.
    """

    def __init__(self, folder: S3Folder, extensions: Mapping[str, str]) -> None:
        """extensions: its keys are the types that will be read. UserError if they are not listed."""
        self.folder = folder
        filenames, metadata = (folder.bucket.read(folder.key(name)) for name in (FILENAMES, METADATA))
        sequences, self.extensions = read_index(filenames, metadata, folder.where("").rstrip("/"))
        root = _root_in(sequences.values(), folder.path)
        blocks: dict[int, Keys] = {}  # types that belong together have one list
        self._keys = {}
        for kind in extensions:
            if kind not in sequences or kind not in self.extensions:
                there = ", ".join(sorted(sequences.keys() & self.extensions.keys())) or "none"
                raise UserError(f"{folder.where(FILENAMES)}: lists no input type {kind!r}; it has: {there}")
            block = id(sequences[kind])
            blocks[block] = blocks.get(block) or self._listed(kind, sequences[kind], root)
            self._keys[kind] = blocks[block]

    def keys(self, kind: str) -> list[str]:
        return list(self._keys[kind])

    def shards(self, kind: str) -> list[int]:
        return [len(self._keys[kind])]

    def read(self, kind: str, key: str) -> bytes:
        return self.folder.fetch(self._name(kind, key))

    def open(self, kind: str, key: str) -> BinaryIO:
        return io.BytesIO(self.read(kind, key))

    def modified(self, kind: str, key: str) -> int:
        return 0  # to ask costs as much as to read

    def where(self, kind: str, key: str) -> str:
        return self.folder.where(self._name(kind, key))

    def extension(self, kind: str) -> str:
        return self.extensions[kind].lower()

    def _listed(self, kind: str, sequences: Sequences, root: str) -> Keys:
        keys = [f"{_sequence(path, root)}/{name}" for path, names in sequences.items() for name in names]
        at = self.folder.where(FILENAMES)
        if not keys:
            raise UserError(f"{at}: lists no files of input type {kind!r}; make it again with `imagier data index`")
        wrong = wrong_key(keys)
        if wrong is not None:
            raise UserError(f"{at}: lists {wrong!a}, which can be no file's name; correct it")
        return Keys(keys)

    def _name(self, kind: str, key: str) -> str:
        # In a key of S3, a dot is no folder.
        return f"{kind}/{whole_sequence(key).removeprefix('./')}.{self.extensions[kind]}"


def _root_in(of_types: Iterable[Sequences], path: str) -> str:
    """What all listed sequences begin with, if it is the path of the root, or the last part of it; else nothing."""
    listed = {_sequence(name, "") for sequences in of_types for name in sequences}
    roots = (path, posixpath.basename(path))
    return next((root for root in roots if root and all(f"{name}/".startswith(f"{root}/") for name in listed)), "")


def _sequence(path: str, root: str) -> str:
    """A sequence as it is called in a folder ("a/b", or "." for the folder itself), from how it is listed."""
    path = posixpath.normpath(path)
    return path[len(root) :].lstrip("/") or "." if root else path
