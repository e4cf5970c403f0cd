"""Which images of a folder were made by the same command before: those need not be made again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imagier.errors import UserError
from imagier.nn.backbones.weights import hash_file
from imagier.train.disk import AppendFile, describe_error, find_temporaries, name_temporary, write_atomic
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

_NAME = ".made-{}.jsonl"
"""A line for each image that a rank has written: its path in the folder, and hashes of it and of what it is made of."""

_Entry = tuple[str, str, str]


class MadeImages:
    """The list of a folder's images, and of what each was made of. It outlives the process, also one that is killed."""

    def __init__(self, folder: Path, runtime: Runtime, weights: Path, depends_on: Iterable[str]) -> None:
        """weights: the checkpoint. depends_on: what else all images are made of."""
        self.folder = folder
        self.key = _hash([*depends_on, hash_file(weights)])
        self._known = {entry for path in folder.glob(_NAME.format("*")) for entry in _read(path)}
        self._path = folder / _NAME.format(runtime.rank)
        self._left: dict[Path, dict[str, list[Path]]] = {}
        """What killed processes left half-written, by folder and file."""
        self._clear(self._path)
        self._compact()
        self._file = AppendFile(self._path)
        self.found = self.stale = 0

    def find(self, path: Path, made_of: Sequence[str]) -> bool:
        """Whether the image of a path is there, and was made of the same. What is half-written of it is removed."""
        self._clear(path)
        is_there = path.is_file()
        is_same = is_there and self._describe(path, made_of) in self._known
        self.found += is_same
        self.stale += is_there and not is_same
        return is_same

    def add(self, path: Path, made_of: Sequence[str]) -> None:
        """Notes an image that is written."""
        with self._explain():
            self._file.append(f"{json.dumps(self._describe(path, made_of))}\n".encode())

    def log(self, runtime: Runtime) -> None:
        """Logs how many images of all ranks were there, and how many of them are made anew."""
        found, stale = runtime.all_reduce_sum(self.found), runtime.all_reduce_sum(self.stale)
        if found:
            logger.info(f"{self.folder}: {found} images were there already, made of the same")
        if stale:
            logger.info(f"{self.folder}: {stale} were there, made of other inputs, weights or options: made again")

    def _clear(self, path: Path) -> None:
        """Removes what is half-written of a file, which no other process may be writing."""
        if path.parent not in self._left:
            self._left[path.parent] = find_temporaries(path.parent)
        for left in self._left[path.parent].pop(name_temporary(path.name), []):
            left.unlink(missing_ok=True)

    def _compact(self) -> None:
        """Keeps one line for each image of this rank's list, the last."""
        if self._path.is_file():
            lines = {entry[0]: json.dumps(entry) for entry in _read(self._path)}
            with self._explain(), write_atomic(self._path) as file:
                file.write("".join(f"{line}\n" for line in lines.values()).encode())

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """UserError where the list cannot be written."""
        try:
            yield
        except OSError as error:
            what = f"cannot be written: {describe_error(error)}"
            advice = "make room, or write elsewhere"
            raise UserError(what, where=self._path, advice=advice, code="unwritable-image") from error

    def _describe(self, path: Path, made_of: Sequence[str]) -> _Entry:
        return path.relative_to(self.folder).as_posix(), hash_file(path), _hash([self.key, *made_of])


def _hash(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path) -> Iterator[_Entry]:
    """A line that a killed process left unfinished is none."""
    for line in path.read_bytes().splitlines():
        try:
            name, image, made_of = json.loads(line)
        except ValueError:
            continue
        yield name, image, made_of
