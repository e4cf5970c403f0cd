"""Where the bytes of samples live."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import BinaryIO, Protocol


class Source(Protocol):
    """A store of files, by input type ("images", "seg_maps") and key ("sequence/name", without extension).

    Processes that read samples get it by fork or by pickle: what it opens, it opens in the process that reads.
    """

    def keys(self, kind: str) -> list[str]:
        """All keys of a type, in the order of the data set."""
        ...

    def shards(self, kind: str) -> list[int]:
        """How many keys, in their order, lie together and are best read together; one number where none do."""
        ...

    def read(self, kind: str, key: str) -> bytes:
        """The bytes of one file. UserError if it is not there."""
        ...

    def open(self, kind: str, key: str) -> BinaryIO:
        """One file, to be read from any place on (videos). UserError if it is not there."""
        ...

    def modified(self, kind: str, key: str) -> int:
        """A number that is another once the file was changed (a time in ns); 0 where nothing tells."""
        ...

    def where(self, kind: str, key: str) -> str:
        """What to call the file in a message: one line."""
        ...

    def extension(self, kind: str) -> str:
        """The format of a type's files, lower case without dot."""
        ...


def unique_names(keys: Iterable[str]) -> list[str]:
    """The keys of several sources, as names: where one has stood there before, it gets a number ("s/a_2")."""
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
    """The key of the file itself where a sequence `<whole>___<3 characters>___` is a part of a longer one, `<whole>`.

    A list of files can so cut one sequence into several; the files stay where they are.
    """
    return _PART.sub(r"\1", key, count=1)


def wrong_key(keys: Iterable[str]) -> str | None:
    """The first key that can be no file's: images made of it would be written elsewhere, or cannot be named."""
    return next((key for key in keys if _WRONG.search(key)), None)


def one_line(path: str) -> str:
    """A path for a message, whatever characters are in it."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], path)


_PART = re.compile(r"___[^/]{3}___(/[^/]*)$")
# Absolute; without a name; a step out of the folder; a zero; half a character, as which Python shows what is not UTF-8.
_WRONG = re.compile(r"^/|^$|/$|(?:^|/)\.\.(?:/|$)|[\0\ud800-\udfff]")
_UNPRINTABLE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
