"""Samples in an object store: an object per file, or tar shards."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

from imagier.data.sources.compute_lock import ComputeLock
from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.fsspec_store import FsspecStore
from imagier.data.sources.index import FILENAMES, METADATA, read_index
from imagier.data.sources.remote import ObjectStore, RemoteFolder
from imagier.data.sources.s3 import SCHEME, S3Store, check_client_arguments, read_credentials
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source, whole_sequence

_ADVICE = "make it with `imagier data index`"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_remote(root: str, store: str | None) -> bool:
    """Whether a root is in an object store: a URL, or bucket/folder. store: the config's dataset_type."""
    return store == "object_store" or _URL.match(root) is not None


def open_remote(
    root: str,
    extensions: Mapping[str, str],
    store: str | None,
    *,
    credentials_file: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cache: DiskCache | None = None,
    compute_lock: ComputeLock | None = None,
) -> Source:
    """The source at a root of an object store: tar shards if `store` is "shards", else an object per file.

    root: s3://bucket/folder, bucket/folder, or any other URL that fsspec reads. extensions: by input type.
    credentials_file: for S3, see `read_credentials`. storage_options: arguments of boto3's client (S3) or of fsspec's
    file system. compute_lock: released while objects are fetched. UserError if it cannot be read.
    """
    folder = RemoteFolder(_open_store(root, credentials_file, storage_options or {}), cache, compute_lock)
    return ShardsSource(folder, extensions) if store == "shards" else ObjectStoreSource(folder, extensions)


def _open_store(root: str, credentials_file: str | None, options: Mapping[str, Any]) -> ObjectStore:
    if _URL.match(root) and not root.startswith(SCHEME):
        return FsspecStore(root, options)
    check_client_arguments(options, "data.storage_options")
    credentials = read_credentials(credentials_file) if credentials_file else {}
    return S3Store(root, {**options, **credentials})


class ObjectStoreSource:
    """Objects root/type/sequence/name.ext. root/all_filenames.json lists them, root/metadata.json has the extensions.

    The reference puts the name of the root in front of the sequences of paired types. It is not part of the keys.
    """

    def __init__(self, folder: RemoteFolder, extensions: Mapping[str, str]) -> None:
        """extensions: its keys are the input types that will be read. UserError if one is not listed."""
        self.folder = folder
        filenames, metadata = (folder.store.read(name) for name in (FILENAMES, METADATA))
        where = folder.where("").rstrip("/")
        self._keys, self.extensions = read_index(
            filenames, metadata, extensions.keys(), where, _ADVICE, folder.store.path
        )

    def keys(self, input_type: str) -> list[str]:
        return list(self._keys[input_type])

    def shards(self, input_type: str) -> list[int]:
        return [len(self._keys[input_type])]

    def read(self, input_type: str, key: str) -> bytes:
        return self.folder.fetch(self._name(input_type, key))

    def open(self, input_type: str, key: str) -> BinaryIO:
        return io.BytesIO(self.read(input_type, key))

    def mtime_ns(self, input_type: str, key: str) -> int:
        return 0  # a request for it would cost as much as reading

    def where(self, input_type: str, key: str) -> str:
        return self.folder.where(self._name(input_type, key))

    def read_beside(self, name: str) -> bytes | None:
        return self.folder.store.read(name) if name in self.folder.store.list_objects() else None

    def extension(self, input_type: str) -> str:
        return self.extensions[input_type].lower()

    def _name(self, input_type: str, key: str) -> str:
        # An object store does not resolve "./".
        return f"{input_type}/{whole_sequence(key).removeprefix('./')}.{self.extensions[input_type]}"
