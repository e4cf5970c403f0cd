"""Where the bytes of samples live."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Source(Protocol):
    """A store of files, by input type ("images", "seg_maps") and key ("sequence/name", without extension)."""

    def keys(self, kind: str) -> list[str]:
        """All keys of a type, in the order of the data set."""
        ...

    def read(self, kind: str, key: str) -> bytes:
        """The bytes of one file. UserError if it is not there."""
        ...

    def where(self, kind: str, key: str) -> str:
        """What to call the file in a message."""
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
