"""Samples as files in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from imagier.data.sources.source import find_bad_key, one_line
from imagier.errors import UserError

_FolderId = tuple[int, int]
"""Device and inode of a folder: the same for all paths that lead to it."""


class FolderSource:
    """Files root/type/sequence/name.ext. Sequences may be nested; files directly in the type's folder have "."."""

    def __init__(self, root: str | Path, extensions: Mapping[str, str]) -> None:
        """extensions: by input type, spelled as in the names of the files. UserError if there is no such folder."""
        self.root = Path(root)
        self.extensions = dict(extensions)
        self._counts: dict[str, int] = {}
        if not os.path.isdir(self.root):  # noqa: PTH112 - Path.is_dir raises if permission is denied
            advice = "check `roots` in the data section"
            raise UserError("no such folder", where=self.root, advice=advice, code="missing-folder")

    def keys(self, input_type: str) -> list[str]:
        folder = self.root / input_type
        try:
            if not folder.is_dir():
                what = f"no folder {input_type!r} for the input type of that name"
                raise UserError(what, where=self.root, advice=self._list_folders(), code="missing-input-type")
        except OSError as error:
            where = one_line(error.filename)
            raise UserError(
                str(error.strerror), where=where, advice="check `roots`", code="unreadable-folder"
            ) from error
        suffix = f".{self.extensions[input_type]}"
        keys = [
            f"{sequence}/{name}" for sequence, names in sorted(_walk(str(folder), suffix)) for name in sorted(names)
        ]
        if not keys:
            advice = f"check `ext` of input type {input_type!r}"
            raise UserError(f"no file ends in {suffix}", where=folder, advice=advice, code="no-files")
        bad = find_bad_key(keys)
        if bad is not None:
            advice = "rename it (convmv renames many at once)"
            raise UserError("the name is not UTF-8", where=self.where(input_type, bad), advice=advice, code="bad-key")
        self._counts[input_type] = len(keys)
        return keys

    def shards(self, input_type: str) -> list[int]:
        return [self._counts[input_type] if input_type in self._counts else len(self.keys(input_type))]

    def read(self, input_type: str, key: str) -> bytes:
        try:
            with open(self._path(input_type, key), "rb") as file:  # noqa: PTH123 - a Path would double the time
                return file.read()
        except OSError as error:
            raise self._unreadable(error, input_type, key) from error

    def open(self, input_type: str, key: str) -> BinaryIO:
        try:
            return Path(self._path(input_type, key)).open("rb")
        except OSError as error:
            raise self._unreadable(error, input_type, key) from error

    def mtime_ns(self, input_type: str, key: str) -> int:
        try:
            return os.stat(self._path(input_type, key)).st_mtime_ns  # noqa: PTH116
        except OSError as error:
            raise self._unreadable(error, input_type, key) from error

    def where(self, input_type: str, key: str) -> str:
        return one_line(str(Path(self._path(input_type, key))))

    def extension(self, input_type: str) -> str:
        return self.extensions[input_type].lower()

    def _path(self, input_type: str, key: str) -> str:
        return f"{self.root}/{input_type}/{key}.{self.extensions[input_type]}"

    def _unreadable(self, error: OSError, input_type: str, key: str) -> UserError:
        return UserError(str(error.strerror), where=self.where(input_type, key), code="unreadable-file")

    def _list_folders(self) -> str:
        names = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        return one_line(f"it has: {', '.join(names)}") if names else "it has no folders"


def _walk(top: str, suffix: str) -> Iterator[tuple[str, list[str]]]:
    """For `top` and every folder below it: the path from `top`, and the names with the suffix, which is removed.

    Follows links to folders. UserError for a link to a folder that contains it, or a folder that cannot be listed.
    """
    pending: list[tuple[str, str, tuple[_FolderId, ...]]] = [(top, "", ())]
    while pending:
        path, sequence, ancestors = pending.pop()
        try:
            stat = os.stat(path)  # noqa: PTH116
            folder_id = (stat.st_dev, stat.st_ino)
            if folder_id in ancestors:
                what = "a link to a folder that contains it"
                raise UserError(what, where=one_line(path), advice="remove it", code="link-cycle")
            names = []
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir():
                        child = f"{sequence}/{entry.name}" if sequence else entry.name
                        pending.append((entry.path, child, (*ancestors, folder_id)))
                    elif entry.name.endswith(suffix) and entry.name[0] != ".":
                        names.append(entry.name.removesuffix(suffix))
        except OSError as error:
            what, where = f"cannot be listed: {error.strerror}", one_line(error.filename or path)
            raise UserError(what, where=where, code="unreadable-folder") from error
        yield sequence or ".", names
