"""Samples as files in folders."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from imagier.data.sources.source import (
    describe_unused,
    find_bad_key,
    is_metadata,
    is_same_format,
    one_line,
    read_if_there,
)
from imagier.errors import UserError, suggest_sibling

logger = logging.getLogger(__name__)

_FolderId = tuple[int, int]
"""Device and inode of a folder: the same for all paths that lead to it."""


class FolderSource:
    """Files root/type/sequence/name.ext. Sequences may be nested; files directly in the type's folder have ".".

    Other spellings of an extension (JPG, jpeg) are read too. How many files have another one is logged, since nobody
    would miss them.
    """

    def __init__(self, root: str | Path, extensions: Mapping[str, str], *, is_literal: bool = False) -> None:
        """extensions: by input type. is_literal: read no other spelling. UserError if there is no such folder."""
        self.root = Path(root)
        self.extensions = dict(extensions)
        self.is_literal = is_literal
        self._counts: dict[str, int] = {}
        self._spellings: dict[str, dict[str, str]] = {}
        """By input type, as far as it was listed: the extensions of the keys that have another spelling of theirs."""
        if not os.path.isdir(self.root):  # noqa: PTH112 - Path.is_dir raises if permission is denied
            advice = suggest_sibling(self.root) or "check `roots` in the data section"
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
        suffix, listed = f".{self.extensions[input_type]}", self._list(input_type)
        keys = [f"{sequence}/{name}" for sequence, names in sorted(listed) for name in sorted(names)]
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
            with open(self._find(input_type, key), "rb") as file:  # noqa: PTH123 - a Path would double the time
                return file.read()
        except OSError as error:
            raise self._unreadable(error, input_type, key) from error

    def open(self, input_type: str, key: str) -> BinaryIO:
        try:
            return Path(self._find(input_type, key)).open("rb")
        except OSError as error:
            raise self._unreadable(error, input_type, key) from error

    def mtime_ns(self, input_type: str, key: str) -> int:
        try:
            return os.stat(self._find(input_type, key)).st_mtime_ns  # noqa: PTH116
        except OSError as error:
            raise self._unreadable(error, input_type, key) from error

    def where(self, input_type: str, key: str) -> str:
        return one_line(str(Path(self._path(input_type, key))))

    def read_beside(self, name: str) -> bytes | None:
        return read_if_there(self.root / name)

    def extension(self, input_type: str) -> str:
        return self.extensions[input_type].lower()

    def _path(self, input_type: str, key: str) -> str:
        extension = self._spellings.get(input_type, {}).get(key) or self.extensions[input_type]
        return f"{self.root}/{input_type}/{key}.{extension}"

    def _find(self, input_type: str, key: str) -> str:
        """The path of a file, also of a type that was not listed yet."""
        path = self._path(input_type, key)
        if input_type not in self._spellings and not os.path.exists(path) and (self.root / input_type).is_dir():  # noqa: PTH110
            self._list(input_type)
            path = self._path(input_type, key)
        return path

    def _list(self, input_type: str) -> list[tuple[str, list[str]]]:
        """The names of the files of each folder of a type, without extension; notes spellings, and logs what is left.

        Of two files whose names differ only in the spelling of the extension, the one that is as configured counts.
        """
        wanted = self.extensions[input_type]
        suffix = f".{wanted}"
        spellings: dict[str, str] = {}
        unused: Counter[str] = Counter()
        listed = []
        for sequence, files in _walk(str(self.root / input_type)):
            names = dict.fromkeys((file.removesuffix(suffix) for file in files if file.endswith(suffix)), wanted)
            for file in sorted(file for file in files if not file.endswith(suffix)):
                name, _, extension = file.rpartition(".")
                if name and name not in names and is_same_format(extension, wanted) and not self.is_literal:
                    names[name] = spellings[f"{sequence}/{name}"] = extension
                else:
                    unused[extension] += 1
            listed.append((sequence, list(names)))
        line = describe_unused(str(self.root / input_type), input_type, wanted, unused)
        if line is not None and input_type not in self._spellings and any(names for _, names in listed):
            logger.warning(line)
        self._spellings[input_type] = spellings
        return listed

    def _unreadable(self, error: OSError, input_type: str, key: str) -> UserError:
        return UserError(str(error.strerror), where=self.where(input_type, key), code="unreadable-file")

    def _list_folders(self) -> str:
        names = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not is_metadata(path.name))
        return one_line(f"it has: {', '.join(names)}") if names else "it has no folders"


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """For `top` and every folder below it: the path from `top`, and the names of its files. No hidden ones.

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
                    if is_metadata(entry.name):
                        continue
                    if entry.is_dir():
                        child = f"{sequence}/{entry.name}" if sequence else entry.name
                        pending.append((entry.path, child, (*ancestors, folder_id)))
                    else:
                        names.append(entry.name)
        except OSError as error:
            what, where = f"cannot be listed: {error.strerror}", one_line(error.filename or path)
            raise UserError(what, where=where, code="unreadable-folder") from error
        yield sequence or ".", names
