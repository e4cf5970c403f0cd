"""Which files go into a store, in which order."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from imagier.data.sources.source import Source, one_line
from imagier.errors import UserError


@dataclass(frozen=True)
class Plan:
    """The keys of every input type, sequence after sequence, and the extension of each type."""

    keys: Mapping[str, Sequence[str]]
    """By type; the same object for all of them where they belong together."""
    extensions: Mapping[str, str]
    paired: bool
    """Asked for: all types have the same keys."""
    removed: int = 0
    """Keys that are left out, since some type lacks them."""

    @cached_property
    def is_grouped(self) -> bool:
        """Whether all types have the same keys, asked for or not, so that a sample's files can lie together."""
        first, *others = self.keys.values()
        return all(keys is first or keys == first for keys in others)

    def __len__(self) -> int:
        return sum(map(len, self.keys.values()))

    def by_type(self, start: int = 0) -> Iterator[tuple[str, str]]:
        """(type, key) of every file, from file `start` on: all of the first type, then all of the second."""
        for kind, keys in self.keys.items():
            for place in range(min(start, len(keys)), len(keys)):
                yield kind, keys[place]
            start = max(0, start - len(keys))

    def by_key(self, start: int = 0) -> Iterator[tuple[str, str]]:
        """The same, sample after sample. Only if `is_grouped`."""
        kinds = list(self.keys)
        keys = self.keys[kinds[0]]
        for place in range(start, len(self)):
            yield kinds[place % len(kinds)], keys[place // len(kinds)]

    def sequences(self, kind: str) -> dict[str, list[str]]:
        """The names of a type's files by sequence."""
        return _by_sequence(self.keys[kind])

    def digest(self) -> str:
        """The same for the same files in the same order."""
        hashed = hashlib.sha256(json.dumps([list(self.keys), list(self.extensions.items()), self.paired]).encode())
        for keys in self.keys.values():
            hashed.update(json.dumps(keys).encode())
        return hashed.hexdigest()


def plan(
    source: Source,
    kinds: Sequence[str],
    *,
    paired: bool = False,
    remove_missing: bool = False,
    only: Sequence[str] | None = None,
) -> Plan:
    """The files of a source that go into a store.

    paired: the keys of the first type, each of which all types must have; else each type has its own. only: with
    `paired`, these keys. remove_missing: leave out what some type lacks. UserError for what is lacking, else.
    """
    extensions = {kind: source.extension(kind) for kind in kinds}
    listed = {kind: source.keys(kind) for kind in kinds}
    if not paired:
        return Plan({kind: _in_sequences(keys) for kind, keys in listed.items()}, extensions, paired)
    wanted = _in_sequences(listed[kinds[0]] if only is None else only)
    there: dict[str, Collection[str]] = {kind: set(keys) for kind, keys in listed.items()}
    keys = [key for key in wanted if all(key in there[kind] for kind in kinds)]
    if len(keys) < len(wanted) and not remove_missing:
        missing = next((kind, key) for key in wanted for kind in kinds if key not in there[kind])
        more = len(wanted) - len(keys) - 1
        others = f" (and {more} more samples lack a file)" if more else ""
        raise UserError(
            f"not there{others}", where=source.where(*missing), advice="add it, or leave such out with --remove_missing"
        )
    if not keys:
        raise UserError("no sample is left: none has a file of every type", advice="check the folders and --input_list")
    return Plan(dict.fromkeys(kinds, keys), extensions, paired, len(wanted) - len(keys))


def _in_sequences(keys: Sequence[str]) -> list[str]:
    """The keys of each sequence together, each once, as a list by sequences would have them."""
    if len(set(keys)) < len(keys):
        (twice, _), *_ = Counter(keys).most_common(1)
        raise UserError("is listed twice", where=one_line(twice), advice="every sample needs a name of its own")
    return [f"{sequence}/{name}" for sequence, names in _by_sequence(keys).items() for name in names]


def _by_sequence(keys: Sequence[str]) -> dict[str, list[str]]:
    sequences: dict[str, list[str]] = {}
    for key in keys:
        sequence, _, name = key.rpartition("/")
        sequences.setdefault(sequence, []).append(name)
    return sequences
