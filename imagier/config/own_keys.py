"""Keys that data sets and codecs have of their own, next to the shared ones of `data` and `test_data`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from imagier.config import schema
from imagier.config.constructor import list_parameters
from imagier.config.find import Kind, find
from imagier.config.load import KeyPath, Mistake
from imagier.errors import UserError

SECTIONS = ("data", "test_data")
SPLITS = ("train", "val", "test")

_DATA_KEYS, _SPLIT_KEYS, _INPUT_TYPE_KEYS = (
    frozenset(f.name for f in dataclasses.fields(section) if f.name != "own")
    for section in (schema.Data, schema.Split, schema.InputType)
)


@dataclass(frozen=True)
class OwnKeys:
    """The keys that one section gives to its class."""

    key_path: KeyPath
    """The section: `data`, a split, or an input type."""
    type_path: KeyPath
    """Where its type stands."""
    cls: Any
    first: str
    """The argument of its constructor that a config cannot give: what the shared keys say."""
    given: dict[str, Any]
    inherited: dict[str, KeyPath]
    """Where those keys stand that are not in this section."""
    shared: frozenset[str]
    """The keys that may stand next to them."""
    check: Callable[[Mapping[str, Any]], None] = lambda keys: None
    """UserError, whose place is a key, if the values of the keys do not fit together."""

    def locate(self, key_path: KeyPath) -> KeyPath:
        """Where a key stands: its path in this section -> its path in the config."""
        inner = key_path[len(self.key_path) :]
        return (*self.inherited[str(inner[0])], *inner[1:]) if inner and inner[0] in self.inherited else key_path

    def find_conflict(self) -> Mistake | None:
        """What is wrong with the class itself: it takes a shared key, which is in its first argument already."""
        names = [parameter.name for parameter in list_parameters(self.cls)]
        if names[:1] != [self.first]:
            what = f"the first argument of its constructor must be called {self.first}"
            return Mistake(self.type_path, what, code="wrong-constructor")
        taken = [name for name in names if name in self.shared]
        if not taken:
            return None
        what = f"its constructor takes {taken[0]}, a key of every such section"
        advice = f"read it from `{self.first}`, or rename the argument"
        return Mistake(self.type_path, what, advice, "wrong-constructor")


@dataclass
class OwnKeyFinder:
    """Takes the keys of its classes' own out of a section of data."""

    found: list[OwnKeys] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    """Types that are not there. What else stands in their sections is not judged."""

    def take(self, section: str, data: Any) -> Any:
        """A section without the keys of its classes' own, which are noted."""
        if not isinstance(data, Mapping):
            return data
        cls = self._find(schema.DATASET, (section, "type"), data.get("type", schema.DEFAULT_DATASET))
        given = {key: value for key, value in data.items() if key not in _DATA_KEYS}
        rest = self._take_from_input_types((section,), {key: data[key] for key in data if key not in given})
        if cls is not None and not any(_inherits(rest.get(split)) for split in SPLITS):
            check = partial(cls.check_keys, is_training=False)
            self.found.append(OwnKeys((section,), (section, "type"), cls, "spec", given, {}, _DATA_KEYS, check))
        for split in SPLITS:
            if isinstance(rest.get(split), Mapping):
                rest[split] = self._take_from_split(section, split, rest[split], cls, given)
        return rest

    def _find(self, kind: Kind, key_path: KeyPath, type_: Any) -> Any:
        """The class of a type, or None."""
        if not isinstance(type_, str):
            return None
        try:
            return find(kind, type_)
        except UserError as error:
            self.mistakes.append(Mistake(key_path, error.what, error.advice, error.code))
            return None

    def _take_from_split(
        self, section: str, split: str, keys: Mapping[str, Any], cls: Any, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """cls, given: of the whole section. A split with a type of its own takes nothing from it."""
        key_path = (section, split)
        type_path: KeyPath = (section, "type")
        if not _inherits(keys):
            type_path = (*key_path, "type")
            cls, given = self._find(schema.DATASET, type_path, keys["type"]), {}
        rest = self._take_from_input_types(key_path, keys)
        mine = {key: value for key, value in rest.items() if key not in _SPLIT_KEYS}
        inherited: dict[str, KeyPath] = {key: (section, key) for key in given if key not in mine}
        if cls is not None:
            shared, check = _SPLIT_KEYS | _DATA_KEYS, partial(cls.check_keys, is_training=split == "train")
            self.found.append(OwnKeys(key_path, type_path, cls, "spec", {**given, **mine}, inherited, shared, check))
        return {key: value for key, value in rest.items() if key not in mine}

    def _take_from_input_types(self, key_path: KeyPath, keys: Mapping[str, Any]) -> dict[str, Any]:
        entries = keys.get("input_types")
        if not isinstance(entries, list):
            return dict(keys)
        rest = [
            {name: self._take_from_input_type((*key_path, "input_types", i, name), one) for name, one in entry.items()}
            if isinstance(entry, Mapping)
            else entry
            for i, entry in enumerate(entries)
        ]
        return {**keys, "input_types": rest}

    def _take_from_input_type(self, key_path: KeyPath, keys: Any) -> Any:
        if not isinstance(keys, Mapping) or keys.get("type") is None:
            return keys
        given = {key: value for key, value in keys.items() if key not in _INPUT_TYPE_KEYS}
        cls = self._find(schema.CODEC, (*key_path, "type"), keys["type"])
        if cls is not None:
            self.found.append(OwnKeys(key_path, (*key_path, "type"), cls, "input_type", given, {}, _INPUT_TYPE_KEYS))
        return {key: value for key, value in keys.items() if key not in given}


def _inherits(split: Any) -> bool:
    """Whether a split is read by the data set of its section."""
    return isinstance(split, Mapping) and split.get("type") is None


Checked = Mapping[KeyPath, tuple[OwnKeys, Mapping[str, Any]]]
"""The keys of each section, and their values with all defaults."""


def put_own_keys(run: schema.Run, checked: Checked) -> schema.Run:
    """The sections with the checked keys in `own`: of each split and input type, and of `data` what splits inherit."""

    def fill(data: schema.Data, section: str) -> schema.Data:
        inherited: dict[str, Any] = {}
        filled: dict[str, Any] = {}
        for name, split in _splits(data).items():
            own: dict[str, Any] = {}
            if (section, name) in checked:
                place, keys = checked[section, name]
                own = dict(keys)
                if split.type is None:
                    inherited |= {key: own[key] for key in own if key not in place.given or key in place.inherited}
            filled[name] = dataclasses.replace(_fill_input_types(split, (section, name), checked), own=own)
        return dataclasses.replace(_fill_input_types(data, (section,), checked), own=inherited, **filled)

    test_data = None if run.test_data is None else fill(run.test_data, "test_data")
    return dataclasses.replace(run, data=fill(run.data, "data"), test_data=test_data)


def hide_inherited_keys(run: schema.Run) -> schema.Run:
    """The sections with each key of the classes' own where it was given: in the section of data, or in a split."""

    def hide(data: schema.Data) -> schema.Data:
        shown: dict[str, Any] = {}
        for name, split in _splits(data).items():
            inherited = data.own if split.type is None else {}
            own = {k: v for k, v in split.own.items() if k not in inherited or inherited[k] != v}
            shown[name] = dataclasses.replace(split, own=own)
        return dataclasses.replace(data, **shown)

    return dataclasses.replace(
        run, data=hide(run.data), test_data=None if run.test_data is None else hide(run.test_data)
    )


def _splits(data: schema.Data) -> dict[str, schema.Split]:
    splits = {"train": data.train, "val": data.val, "test": data.test}
    return {name: split for name, split in splits.items() if split is not None}


def _fill_input_types(section: Any, key_path: KeyPath, checked: Checked) -> Any:
    if section.input_types is None:
        return section

    def fill(options: schema.InputType, here: KeyPath) -> schema.InputType:
        return dataclasses.replace(options, own=dict(checked[here][1])) if here in checked else options

    filled = [
        {name: fill(options, (*key_path, "input_types", i, name)) for name, options in entry.items()}
        for i, entry in enumerate(section.input_types)
    ]
    return dataclasses.replace(section, input_types=filled)
