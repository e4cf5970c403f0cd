"""Samples as files in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from imagier.data.sources.source import one_line, wrong_key
from imagier.errors import UserError

_Identity = tuple[int, int]
"""What a folder is, under whatever name: its device and its number there."""


class FolderSource:
    """Files root/type/sequence/name.ext; a sequence may be nested, and is "." for files right under the type."""

    def __init__(self, root: str | Path, extensions: Mapping[str, str]) -> None:
        """extensions: that of the files of each type, as it is written there. UserError if there is no such folder."""
        self.root = Path(root)
        self.extensions = dict(extensions)
        self._counts: dict[str, int] = {}
        if not os.path.isdir(self.root):  # noqa: PTH112 - a Path's raises where it may not look
            raise UserError("no such folder", where=self.root, advice="check `roots` in the data section")

    def keys(self, kind: str) -> list[str]:
        folder = self.root / kind
        try:
            if not folder.is_dir():
                raise UserError(
                    f"no folder {kind!r} for the input type of that name", where=self.root, advice=self._folders()
                )
        except OSError as error:
            raise UserError(str(error.strerror), where=one_line(error.filename), advice="check `roots`") from error
        suffix = f".{self.extensions[kind]}"
        keys: list[str] = []
        for sequence, names in sorted(_files(str(folder), suffix)):
            keys += [f"{sequence}/{name}" for name in sorted(names)]
        if not keys:
            raise UserError(f"no file ends in {suffix}", where=folder, advice=f"check `ext` of input type {kind!r}")
        wrong = wrong_key(keys)
        if wrong is not None:
            raise UserError(
                "the name is not UTF-8", where=self.where(kind, wrong), advice="rename it (convmv does it for many)"
            )
        self._counts[kind] = len(keys)
        return keys

    def shards(self, kind: str) -> list[int]:
        return [self._counts[kind] if kind in self._counts else len(self.keys(kind))]

    def read(self, kind: str, key: str) -> bytes:
        try:
            with open(self._path(kind, key), "rb") as file:  # noqa: PTH123 - half of the time would go into a Path
                return file.read()
        except OSError as error:
            raise UserError(str(error.strerror), where=self.where(kind, key)) from error

    def open(self, kind: str, key: str) -> BinaryIO:
        try:
            return Path(self._path(kind, key)).open("rb")
        except OSError as error:
            raise UserError(str(error.strerror), where=self.where(kind, key)) from error

    def modified(self, kind: str, key: str) -> int:
        try:
            return os.stat(self._path(kind, key)).st_mtime_ns  # noqa: PTH116
        except OSError as error:
            raise UserError(str(error.strerror), where=self.where(kind, key)) from error

    def where(self, kind: str, key: str) -> str:
        return one_line(str(Path(self._path(kind, key))))

    def extension(self, kind: str) -> str:
        return self.extensions[kind].lower()

    def _path(self, kind: str, key: str) -> str:
        return f"{self.root}/{kind}/{key}.{self.extensions[kind]}"

    def _folders(self) -> str:
        there = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        return one_line(f"it has: {', '.join(there)}") if there else "it has no folders"


def _files(top: str, suffix: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder from `top` down as its path from there, with the names, without suffix, of the files that have it.

    Links to folders are followed. UserError for one that leads back to a folder around it, and for a folder that cannot
    be listed.
    """
    waiting: list[tuple[str, str, tuple[_Identity, ...]]] = [(top, "", ())]
    while waiting:
        path, sequence, around = waiting.pop()
        try:
            here = os.stat(path)  # noqa: PTH116
            identity = (here.st_dev, here.st_ino)
            if identity in around:
                raise UserError(
                    "a link to a folder that it lies in, and so without end", where=one_line(path), advice="remove it"
                )
            names = []
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir():
                        below = f"{sequence}/{entry.name}" if sequence else entry.name
                        waiting.append((entry.path, below, (*around, identity)))
                    elif entry.name.endswith(suffix) and entry.name[0] != ".":
                        names.append(entry.name.removesuffix(suffix))
        except OSError as error:
            raise UserError(f"cannot be listed: {error.strerror}", where=one_line(error.filename or path)) from error
        yield sequence or ".", names
