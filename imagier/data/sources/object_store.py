"""Samples and shards in an object store (S3), with copies on a local disk."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, BinaryIO

from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.index import FILENAMES, METADATA, read_index
from imagier.data.sources.s3 import PATIENCE, Bucket, Listed, Patience, read_credentials
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source, whole_sequence
from imagier.errors import UserError

SCHEME = "s3://"
_MEND = "make it with `imagier data index`"
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
    """The objects of a bucket that lie under a path; their names are what comes behind it."""

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
            raise UserError(f"{root!r} names no bucket", where="roots", advice="write bucket/folder")
        self.bucket = Bucket(bucket, credentials, patience)
        self.cache = cache
        self._server = self.bucket.endpoint if cache is not None else ""

    def names(self) -> list[str]:
        """Those right under the path, sorted, as of a flat folder. UserError if there are none."""
        return list(self._listed)

    def size(self, name: str) -> int:
        """Bytes of one that is in `names`."""
        return self._listed[name].size

    def key(self, name: str) -> str:
        """The key of one in the bucket."""
        return posixpath.join(self.path, name)

    def where(self, name: str) -> str:
        """What to call one in a message."""
        return self.bucket.where(self.key(name))

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
        """A part of one that is in `names`, fewer bytes at its end. With a cache, all of it is fetched at once.

        UserError if it is no longer the one that was listed.
        """
        key, listed = self.key(name), self._listed[name]
        length = max(0, min(length, listed.size - offset))  # to ask for what lies behind the end is an error
        if self.cache is not None:
            entry = self._entry(f"{key} {listed.version}")
            found = self.cache.part(entry, listed.size, offset, length, lambda: self.bucket.parts(key, listed))
            if found is not None:
                return found
        return self.bucket.read(key, offset, length, listed.version)

    @cached_property
    def _listed(self) -> dict[str, Listed]:
        prefix = self.key("")
        found = {key.removeprefix(prefix): listed for key, listed in self.bucket.list(prefix).items()}
        if not found:
            raise UserError("no objects there", where=self.where(""), advice="check `roots`")
        return found

    def _entry(self, key: str) -> str:
        return f"{self._server} {self.bucket.name} {key}"


class ObjectStoreSource:
    """Objects root/type/sequence/name.ext; root/all_filenames.json lists them, root/metadata.json has the extensions.

    Where all sequences of paired types are listed with the name of the root in front, as the reference lists them, it
    is no part of them.
    """

    def __init__(self, folder: S3Folder, extensions: Mapping[str, str]) -> None:
        """extensions: its keys are the types that will be read. UserError if they are not listed."""
        self.folder = folder
        filenames, metadata = (folder.bucket.read(folder.key(name)) for name in (FILENAMES, METADATA))
        where = folder.where("").rstrip("/")
        self._keys, self.extensions = read_index(filenames, metadata, extensions.keys(), where, _MEND, folder.path)

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

    def _name(self, kind: str, key: str) -> str:
        # In a key of S3, a dot is no folder.
        return f"{kind}/{whole_sequence(key).removeprefix('./')}.{self.extensions[kind]}"
