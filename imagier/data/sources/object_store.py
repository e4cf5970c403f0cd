"""Samples in an object store: single objects in folders, or tar shards."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.fsspec_store import FsspecStore
from imagier.data.sources.index import FILENAMES, METADATA, read_index
from imagier.data.sources.remote import ObjectStore, RemoteFolder
from imagier.data.sources.s3 import SCHEME, S3Store, check_client_arguments, read_credentials
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source, whole_sequence

_MEND = "make it with `imagier data index`"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_remote(root: str, store: str | None) -> bool:
    """Whether a root lies in an object store: a URL, or bucket/folder. store: the dataset_type of the config."""
    return store == "object_store" or _URL.match(root) is not None


def open_remote(
    root: str,
    extensions: Mapping[str, str],
    store: str | None,
    *,
    credentials_file: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cache: DiskCache | None = None,
) -> Source:
    """The source at a root of an object store: tar shards if `store` is "shards", else objects in folders.

    root: s3://bucket/folder, the same without scheme, or any other URL that fsspec reads. extensions: by input type.
    credentials_file: S3, see `read_credentials`. storage_options: arguments of boto3's client (S3) or of fsspec's file
    system. UserError if it cannot be read.
    """
    folder = RemoteFolder(_open_store(root, credentials_file, storage_options or {}), cache)
    return ShardsSource(folder, extensions) if store == "shards" else ObjectStoreSource(folder, extensions)


def _open_store(root: str, credentials_file: str | None, options: Mapping[str, Any]) -> ObjectStore:
    if _URL.match(root) and not root.startswith(SCHEME):
        return FsspecStore(root, options)
    check_client_arguments(options, "data.storage_options")
    credentials = read_credentials(credentials_file) if credentials_file else {}
    return S3Store(root, {**options, **credentials})


class ObjectStoreSource:
    """Objects root/type/sequence/name.ext; root/all_filenames.json lists them, root/metadata.json has the extensions.

    The reference lists sequences of paired types with the name of the root in front, if it does so for all of them;
    that name is not part of a key.
    """

    def __init__(self, folder: RemoteFolder, extensions: Mapping[str, str]) -> None:
        """extensions: its keys are the types that will be read. UserError if they are not listed."""
        self.folder = folder
        filenames, metadata = (folder.store.read(name) for name in (FILENAMES, METADATA))
        where = folder.where("").rstrip("/")
        self._keys, self.extensions = read_index(
            filenames, metadata, extensions.keys(), where, _MEND, folder.store.path
        )

    def keys(self, input_type: str) -> list[str]:
        return list(self._keys[input_type])

    def shards(self, input_type: str) -> list[int]:
        return [len(self._keys[input_type])]

    def read(self, input_type: str, key: str) -> bytes:
        return self.folder.fetch(self._name(input_type, key))

    def open(self, input_type: str, key: str) -> BinaryIO:
        return io.BytesIO(self.read(input_type, key))

    def modified(self, input_type: str, key: str) -> int:
        return 0  # asking costs as much as reading

    def where(self, input_type: str, key: str) -> str:
        return self.folder.where(self._name(input_type, key))

    def extension(self, input_type: str) -> str:
        return self.extensions[input_type].lower()

    def _name(self, input_type: str, key: str) -> str:
        # In the key of an object, a dot is no folder.
        return f"{input_type}/{whole_sequence(key).removeprefix('./')}.{self.extensions[input_type]}"
