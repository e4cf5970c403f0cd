"""Samples as files in folders."""

from __future__ import annotations

import os
from pathlib import Path

from imagier.errors import UserError


class FolderSource:
    """Files root/type/sequence/name.ext; a sequence may be nested, and is "." for files right under the type."""

    def __init__(self, root: str | Path, extensions: dict[str, str]) -> None:
        self.root = Path(root)
        self.extensions = extensions
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder; check `roots` in the data section")

    def keys(self, kind: str) -> list[str]:
        folder = self.root / kind
        if not folder.is_dir():
            there = sorted(path.name for path in self.root.iterdir() if path.is_dir())
            found = f"it has: {', '.join(there)}" if there else "it has no folders"
            raise UserError(f"{self.root}: no folder {kind!r} for the input type of that name; {found}")
        suffix = f".{self.extensions[kind]}"
        keys = []
        walk = os.walk(folder, followlinks=True)
        for sequence, files in sorted((os.path.relpath(path, folder), files) for path, _, files in walk):
            names = sorted(name.removesuffix(suffix) for name in files if name.endswith(suffix) and name[0] != ".")
            keys += [f"{sequence}/{name}" for name in names]
        if not keys:
            raise UserError(f"{folder}: no file ends in {suffix}; check `ext` of input type {kind!r}")
        return keys

    def read(self, kind: str, key: str) -> bytes:
        path = self._path(kind, key)
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error

    def where(self, kind: str, key: str) -> str:
        return str(self._path(kind, key))

    def extension(self, kind: str) -> str:
        return self.extensions[kind].lower()

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.{self.extensions[kind]}"
