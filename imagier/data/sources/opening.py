"""Which kind of store lies in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from imagier.data.sources.folder import FolderSource
from imagier.data.sources.lmdb import DATA, LmdbSource
from imagier.data.sources.shard_files import LocalFiles
from imagier.data.sources.shard_names import COMPRESSED, SHARD
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source, one_line
from imagier.errors import UserError


def open_local(root: str | Path, extensions: Mapping[str, str], store: str | None = None) -> Source:
    """The store in a folder. extensions: by input type; store: "folder", "lmdb" or "shards", None to look.

    UserError if it cannot be read.
    """
    try:
        store = store or store_type(Path(root), extensions)
    except OSError as error:
        raise UserError(
            str(error.strerror), where=one_line(error.filename or str(root)), advice="check `roots`"
        ) from error
    if store == "lmdb":
        return LmdbSource(root, extensions)
    if store == "shards":
        return ShardsSource(LocalFiles(root), extensions)
    return FolderSource(root, extensions)


def store_type(root: Path, kinds: Mapping[str, str]) -> str:
    """What a folder looks like: "lmdb", "shards" or "folder". kinds: the input types that will be read.

    An environment of a type makes it LMDB. Lists of files do not: a folder may have them for an object store.
    """
    if any((root / kind / DATA).is_file() for kind in kinds):
        return "lmdb"
    if root.is_dir() and not any((root / kind).is_dir() for kind in kinds):
        suffixes = (SHARD, *COMPRESSED)
        return "shards" if any(path.name.endswith(suffixes) for path in root.iterdir()) else "folder"
    return "folder"
