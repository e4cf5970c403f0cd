"""Keys that data sets and kinds of input have of their own, next to the shared ones of `data` and `test_data`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imagier.config import schema
from imagier.config.load import KeyPath
from imagier.config.lookup import find_or_none

SECTIONS = ("data", "test_data")
SPLITS = ("train", "val", "test")

_DATA_KEYS, _SPLIT_KEYS, _INPUT_TYPE_KEYS = (
    frozenset(f.name for f in dataclasses.fields(section) if f.name != "own")
    for section in (schema.Data, schema.Split, schema.InputType)
)


@dataclass(frozen=True)
class OwnKeys:
    """The keys that one place of a config gives to a class."""

    key_path: KeyPath
    """The place: a split, or an input type."""
    cls: Any
    fact: str
    """The argument of its constructor that a config cannot give."""
    given: dict[str, Any]
    elsewhere: dict[str, KeyPath]
    """Where those keys stand that are not at this place."""
    shared: frozenset[str]
    """The keys that may stand next to them."""

    def locate(self, key_path: KeyPath) -> KeyPath:
        """Where a key stands: its path at this place -> its path in the config."""
        inner = key_path[len(self.key_path) :]
        return (*self.elsewhere[str(inner[0])], *inner[1:]) if inner and inner[0] in self.elsewhere else key_path

    def check(self, keys: Mapping[str, Any]) -> None:
        """UserError, whose place is a key, if the values of the keys do not fit together."""
        if self.fact == "spec":
            self.cls.check_keys(keys, is_training=self.key_path[-1] == "train")


def take_own_keys(section: str, data: Any) -> tuple[Any, list[OwnKeys]]:
    """A section of data without the keys of its classes' own, and these. Whatever has no known class stays as it is."""
    if not isinstance(data, Mapping):
        return data, []
    cls = find_or_none(schema.DATASET, data.get("type", schema.DEFAULT_DATASET))
    given = {key: value for key, value in data.items() if key not in _DATA_KEYS} if cls is not None else {}
    rest, found = _take_from_input_types((section,), {key: data[key] for key in data if key not in given})
    if given and not any(_takes_from_section(rest.get(split)) for split in SPLITS):
        found.append(OwnKeys((section,), cls, "spec", given, {}, _DATA_KEYS))
    for split in SPLITS:
        if isinstance(rest.get(split), Mapping):
            rest[split], own = _take_from_split(section, split, rest[split], cls, given)
            found += own
    return rest, found


def _takes_from_section(split: Any) -> bool:
    return isinstance(split, Mapping) and split.get("type") is None


def _take_from_split(
    section: str, split: str, keys: Mapping[str, Any], cls: Any, given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[OwnKeys]]:
    """cls, given: of the whole section. A split with a type of its own takes nothing from it."""
    key_path = (section, split)
    if keys.get("type") is not None:
        cls, given = find_or_none(schema.DATASET, keys["type"]), {}
    rest, of_input_types = _take_from_input_types(key_path, keys)
    if cls is None:
        return rest, of_input_types
    mine = {key: value for key, value in rest.items() if key not in _SPLIT_KEYS}
    elsewhere: dict[str, KeyPath] = {key: (section, key) for key in given if key not in mine}
    own = OwnKeys(key_path, cls, "spec", {**given, **mine}, elsewhere, _SPLIT_KEYS | _DATA_KEYS)
    return {key: value for key, value in rest.items() if key not in mine}, [own, *of_input_types]


def _take_from_input_types(key_path: KeyPath, keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[OwnKeys]]:
    entries = keys.get("input_types")
    if not isinstance(entries, list):
        return dict(keys), []
    found: list[OwnKeys] = []
    rest = [
        {name: _take_from_input_type((*key_path, "input_types", i, name), one, found) for name, one in entry.items()}
        if isinstance(entry, Mapping)
        else entry
        for i, entry in enumerate(entries)
    ]
    return {**keys, "input_types": rest}, found


def _take_from_input_type(key_path: KeyPath, keys: Any, found: list[OwnKeys]) -> Any:
    cls = find_or_none(schema.CODEC, keys.get("type")) if isinstance(keys, Mapping) else None
    if cls is None:
        return keys
    given = {key: value for key, value in keys.items() if key not in _INPUT_TYPE_KEYS}
    found.append(OwnKeys(key_path, cls, "input_type", given, {}, _INPUT_TYPE_KEYS))
    return {key: value for key, value in keys.items() if key not in given}


def put_own_keys(run: schema.Run, own: Mapping[KeyPath, dict[str, Any]]) -> schema.Run:
    """The sections with the checked keys in `own` of each split and input type. own: by their places."""

    def fill(data: schema.Data, section: str) -> schema.Data:
        filled = {
            name: dataclasses.replace(_fill_input_types(split, (section, name), own), own=own.get((section, name), {}))
            for name, split in _splits(data)
        }
        return dataclasses.replace(_fill_input_types(data, (section,), own), **filled)

    test_data = None if run.test_data is None else fill(run.test_data, "test_data")
    return dataclasses.replace(run, data=fill(run.data, "data"), test_data=test_data)


def _splits(data: schema.Data) -> Iterator[tuple[str, schema.Split]]:
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        if split is not None:
            yield name, split


def _fill_input_types(section: Any, key_path: KeyPath, own: Mapping[KeyPath, dict[str, Any]]) -> Any:
    if section.input_types is None:
        return section
    filled = [
        {
            name: dataclasses.replace(one, own=own.get((*key_path, "input_types", i, name), {}))
            for name, one in entry.items()
        }
        for i, entry in enumerate(section.input_types)
    ]
    return dataclasses.replace(section, input_types=filled)
