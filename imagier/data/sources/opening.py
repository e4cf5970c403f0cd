"""Opens the store in a folder: plain files, LMDB or tar shards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from imagier.data.sources.folder import FolderSource
from imagier.data.sources.lmdb import DATA, LmdbSource
from imagier.data.sources.shard_files import LocalFiles
from imagier.data.sources.shard_names import COMPRESSED, SHARD
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source, one_line
from imagier.errors import UserError


def open_local(root: str | Path, extensions: Mapping[str, str], store: str | None = None) -> Source:
    """The store in a folder. extensions: by input type. store: "folder", "lmdb" or "shards"; None: find out.

    UserError if it cannot be read.
    """
    try:
        store = store or detect_store(Path(root), extensions)
    except OSError as error:
        what, where = str(error.strerror), one_line(error.filename or str(root))
        raise UserError(what, where=where, advice="check `roots`", code="unreadable-folder") from error
    if store == "lmdb":
        return LmdbSource(root, extensions)
    if store == "shards":
        return ShardsSource(LocalFiles(root), extensions)
    return FolderSource(root, extensions)


def detect_store(root: Path, input_types: Collection[str]) -> str:
    """What a folder holds: "lmdb", "shards" or "folder". input_types: those that will be read.

    The lists of files are no sign of LMDB: a folder may have them for an object store.
    """
    if any((root / input_type / DATA).is_file() for input_type in input_types):
        return "lmdb"
    if root.is_dir() and not any((root / input_type).is_dir() for input_type in input_types):
        suffixes = (SHARD, *COMPRESSED)
        return "shards" if any(path.name.endswith(suffixes) for path in root.iterdir()) else "folder"
    return "folder"
