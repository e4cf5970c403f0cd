"""The contract of a store of files: `Source`. Also what all sources share: rules for keys, and names for messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Protocol

from imagier.errors import UserError


class Source(Protocol):
    """Files by input type ("images", "seg_maps") and key ("sequence/name", without extension).

    Data sets read from `DatasetSpec.sources`, one per root. Worker processes get a source by fork or by pickle, so it
    opens files and connections in the process that reads. Files in a table of an SQLite database:

        import io
        import sqlite3
        from contextlib import closing

        from imagier.errors import UserError

        class SqliteSource:
            '''Rows (input_type, key, data) of the table `files`.'''

            def __init__(self, path, extensions):
                self.path = path
                self.extensions = extensions

            def keys(self, input_type):
                return [key for (key,) in self.select("key", "input_type = ? ORDER BY key", input_type)]

            def shards(self, input_type):
                return [len(self.keys(input_type))]

            def read(self, input_type, key):
                for (data,) in self.select("data", "input_type = ? AND key = ?", input_type, key):
                    return data
                raise UserError("no such row", where=self.where(input_type, key), code="missing-file")

            def open(self, input_type, key):
                return io.BytesIO(self.read(input_type, key))

            def mtime_ns(self, input_type, key):
                return 0

            def where(self, input_type, key):
                return f"{self.path}[{input_type}/{key}]"

            def extension(self, input_type):
                return self.extensions[input_type]

            def read_beside(self, name):
                return None

            def select(self, column, condition, *values):
                with closing(sqlite3.connect(self.path)) as database:
                    return database.execute(f"SELECT {column} FROM files WHERE {condition}", values).fetchall()
    """

    def keys(self, input_type: str) -> list[str]:
        """All keys of an input type, in the order of the data set."""
        ...

    def shards(self, input_type: str) -> list[int]:
        """Numbers of consecutive keys that are stored together and best read together; their sum is that of all keys.

        One number if the files are not grouped.
        """
        ...

    def read(self, input_type: str, key: str) -> bytes:
        """The content of a file. UserError if there is no such file."""
        ...

    def open(self, input_type: str, key: str) -> BinaryIO:
        """A seekable file, for videos. UserError if there is no such file."""
        ...

    def mtime_ns(self, input_type: str, key: str) -> int:
        """When the file was last modified, in ns; 0 if unknown. Shows whether it has changed."""
        ...

    def where(self, input_type: str, key: str) -> str:
        """The file's name in messages: one line."""
        ...

    def extension(self, input_type: str) -> str:
        """The format of the files: lower case, without a dot."""
        ...

    def read_beside(self, name: str) -> bytes | None:
        """A file of the root, beside the input types, such as all_indices.json; None if there is no such file."""
        ...


def read_if_there(path: Path) -> bytes | None:
    """The content of a file; None if there is no such file. UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(str(error.strerror), where=one_line(str(path)), code="unreadable-file") from error


def unique_names(keys: Iterable[str]) -> list[str]:
    """Names for the keys of several sources. A key that occurs again gets a number: "s/a" -> "s/a_2"."""
    keys = list(keys)
    taken = set(keys)
    seen: set[str] = set()
    names = []
    for key in keys:
        name, number = key, 2
        while key in seen and name in taken:
            name, number = f"{key}_{number}", number + 1
        seen.add(key)
        taken.add(name)
        names.append(name)
    return names


def whole_sequence(key: str) -> str:
    """The key of the stored file. A sequence `<whole>___<3 characters>___` is a part of the sequence `<whole>`.

    So a list of files can split a sequence without moving its files.
    """
    return _PART.sub(r"\1", key, count=1)


def sort_frames(names: Sequence[str]) -> list[str]:
    """The names of a sequence's frames in the order of the numbers in them: frame2 before frame10.

    Numbers are compared with zeros in front, so where they have these already, this is the order of the letters. A list
    in an order of its own, which is not that of the letters, stays as it is.
    """
    if any(before > after for before, after in pairwise(names)):
        return list(names)
    width = max((len(number) for name in names for number in _NUMBER.findall(name)), default=0)
    return sorted(names, key=lambda name: (_NUMBER.sub(lambda found: found[0].zfill(width), name), name))


def is_same_format(extension: str, other: str) -> bool:
    """Whether two extensions are spellings of one: jpg, JPG, jpeg."""
    return _get_format(extension) == _get_format(other)


def describe_unused(where: str, input_type: str, ext: str, unused: Mapping[str, int]) -> str | None:
    """A line about images that are not read, by their extensions; None if there are none."""
    images = Counter({end: count for end, count in unused.items() if _get_format(end) in _IMAGES})
    if not images:
        return None
    total = images.total()
    by_extension = ", ".join(f"{count:,} .{end}" for end, count in images.most_common(5))
    count = f"{total:,} image{' is' if total == 1 else 's are'} not used"
    return one_line(f"{where}: {count} ({by_extension}): ext of {input_type!r} is {ext}")


def _get_format(extension: str) -> str:
    extension = extension.lower()
    return {"jpeg": "jpg", "jpe": "jpg", "tiff": "tif"}.get(extension, extension)


def is_metadata(path: str) -> bool:
    """Whether a file or a folder, or one around it, is hidden or was put there by a system, and is no data."""
    return any((part[:1] == "." and part not in (".", "..")) or part in _OF_SYSTEMS for part in path.split("/"))


def find_bad_key(keys: Iterable[str]) -> str | None:
    """The first key that cannot name a file, or would lead out of the folder of results."""
    return next((key for key in keys if _BAD_KEY.search(key)), None)


def one_line(path: str) -> str:
    """A path for a message, with unprintable characters escaped."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], path)


_IMAGES = frozenset({"jpg", "png", "webp", "bmp", "gif", "tif", "ppm", "pgm", "hdr"})
_NUMBER = re.compile(r"[0-9]+")
_OF_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
    | {"Thumbs.db", "desktop.ini", "Icon\r"}
)
_PART = re.compile(r"___[^/]{3}___(/[^/]*)$")
# Absolute, empty, without a name, with "..", with NUL, or with a surrogate (Python's stand-in for bytes not in UTF-8).
_BAD_KEY = re.compile(r"^/|^$|/$|(?:^|/)\.\.(?:/|$)|[\0\ud800-\udfff]")
_UNPRINTABLE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
