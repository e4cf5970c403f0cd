"""The files that go into a store, and their order."""

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
    """By type. All types share one object where their files belong together."""
    extensions: Mapping[str, str]
    is_paired: bool
    """Whether all types were required to have the same keys."""
    removed: int = 0
    """Number of keys left out because some type lacks them."""

    @cached_property
    def is_grouped(self) -> bool:
        """Whether all types have the same keys, required or not: a sample's files can be stored together."""
        first, *others = self.keys.values()
        return all(keys is first or keys == first for keys in others)

    def __len__(self) -> int:
        return sum(map(len, self.keys.values()))

    def iter_by_type(self, start: int = 0) -> Iterator[tuple[str, str]]:
        """(type, key) of every file, from number `start` on, type after type."""
        for input_type, keys in self.keys.items():
            for index in range(min(start, len(keys)), len(keys)):
                yield input_type, keys[index]
            start = max(0, start - len(keys))

    def iter_by_key(self, start: int = 0) -> Iterator[tuple[str, str]]:
        """(type, key) of every file, from number `start` on, sample after sample. Only if `is_grouped`."""
        input_types = list(self.keys)
        keys = self.keys[input_types[0]]
        for index in range(start, len(self)):
            yield input_types[index % len(input_types)], keys[index // len(input_types)]

    def group_sequences(self, input_type: str) -> dict[str, list[str]]:
        """The names of the files of a type, by sequence."""
        return _group_by_sequence(self.keys[input_type])

    def compute_digest(self) -> str:
        """A hash of all files and their order."""
        hashed = hashlib.sha256(json.dumps([list(self.keys), list(self.extensions.items()), self.is_paired]).encode())
        for keys in self.keys.values():
            hashed.update(json.dumps(keys).encode())
        return hashed.hexdigest()


def make_plan(
    source: Source,
    input_types: Sequence[str],
    *,
    paired: bool = False,
    remove_missing: bool = False,
    only: Sequence[str] | None = None,
) -> Plan:
    """Selects the files of a source that go into a store.

    paired: take the keys of the first type, or those in `only`, and require them of every type. Otherwise each type has
    keys of its own. remove_missing: leave out keys that some type lacks, instead of raising a UserError.
    """
    extensions = {input_type: source.extension(input_type) for input_type in input_types}
    listed = {input_type: source.keys(input_type) for input_type in input_types}
    if not paired:
        return Plan({input_type: _sort_by_sequence(keys) for input_type, keys in listed.items()}, extensions, paired)
    wanted = _sort_by_sequence(listed[input_types[0]] if only is None else only)
    available: dict[str, Collection[str]] = {input_type: set(keys) for input_type, keys in listed.items()}
    keys = [key for key in wanted if all(key in available[input_type] for input_type in input_types)]
    if len(keys) < len(wanted) and not remove_missing:
        missing = next((name, key) for key in wanted for name in input_types if key not in available[name])
        more = len(wanted) - len(keys) - 1
        others = f" (and {more} more samples lack a file)" if more else ""
        raise UserError(
            f"is missing{others}",
            where=source.where(*missing),
            advice="add it, or leave out such samples with --remove_missing",
            code="missing-file",
        )
    if not keys:
        raise UserError(
            "has no sample with a file of every type",
            where=", ".join(input_types),
            advice="check the folders and --input_list",
            code="no-samples",
        )
    return Plan(dict.fromkeys(input_types, keys), extensions, paired, len(wanted) - len(keys))


def _sort_by_sequence(keys: Sequence[str]) -> list[str]:
    """The keys with those of each sequence together. UserError if one occurs twice."""
    if len(set(keys)) < len(keys):
        (twice, _), *_ = Counter(keys).most_common(1)
        raise UserError(
            "is listed twice",
            where=one_line(twice),
            advice="give every sample a name of its own",
            code="duplicate-key",
        )
    return [f"{sequence}/{name}" for sequence, names in _group_by_sequence(keys).items() for name in names]


def _group_by_sequence(keys: Sequence[str]) -> dict[str, list[str]]:
    sequences: dict[str, list[str]] = {}
    for key in keys:
        sequence, _, name = key.rpartition("/")
        sequences.setdefault(sequence, []).append(name)
    return sequences
