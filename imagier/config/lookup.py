"""Which class the section of a key names, and whether that class knows the key; before a document is checked."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

from imagier.config import schema
from imagier.config.find import Kind, find
from imagier.config.load import Document, KeyPath
from imagier.errors import UserError


def kind_at(key_path: KeyPath) -> tuple[Kind, int] | None:
    """The kind of component to which a key belongs, and how many keys lead to its section.

    None where no component can be. Any section that is not one of `schema.Run` is taken for a player's.
    """
    first = str(key_path[0])
    if first in ("data", "test_data"):
        return _kind_in_data(key_path)
    if first == "trainer":
        return schema.RECIPE, 1
    if first.endswith("_opt"):
        return (schema.SCHEDULE, 2) if key_path[1] == "lr_policy" and len(key_path) > 2 else (schema.OPTIMIZER, 1)
    is_shared = first in {f.name for f in dataclasses.fields(schema.Run)}
    return None if is_shared else (schema.player(first), 1)


def _kind_in_data(key_path: KeyPath) -> tuple[Kind, int]:
    """Keys of an entry of input_types belong to a kind of input, all others to a data set."""
    for depth in (4, 5):  # data.input_types.0.images.KEY, data.val.input_types.0.images.KEY
        if len(key_path) > depth and key_path[depth - 3] == "input_types":
            return schema.CODEC, depth
    return schema.DATASET, 2 if len(key_path) > 2 and key_path[1] in ("train", "val", "test") else 1


def type_at(document: Document, key_path: KeyPath) -> Any:
    """The type that the section of a key names, or has where it names none."""
    found = kind_at(key_path)
    if found is None:
        return None
    kind, depth = found
    named = document.get((*key_path[:depth], "type"), kind.default_type)
    if named is None and kind is schema.DATASET:
        return document.get((key_path[0], "type"), schema.DEFAULT_DATASET)
    return named


def class_at(document: Document, key_path: KeyPath) -> Any:
    """The class that the section of a key names; None if there is none, which `check` will tell."""
    found = kind_at(key_path)
    return None if found is None else find_or_none(found[0], type_at(document, key_path))


def find_or_none(kind: Kind, type_: Any) -> Any:
    """The class of a type, or None if there is none, which `check` will tell."""
    if not isinstance(type_, str):
        return None
    try:
        return find(kind, type_)
    except UserError:
        return None


def is_taken(document: Document, key_path: KeyPath) -> bool:
    """Whether a key means something to the class that its section names."""
    found, cls = kind_at(key_path), class_at(document, key_path)
    if found is None or cls is None:
        return False
    kind, depth = found
    path = [str(part) for part in key_path[depth:]]
    return takes(cls, path) or (kind.beside is not None and takes(kind.beside, path))


def takes(cls: type, path: Sequence[str]) -> bool:
    """Whether a constructor has a keyword, or one of a type that has a field, and so on along a path of keys."""
    name, *rest = path
    if name not in inspect.signature(cls).parameters:
        return False
    hint = get_type_hints(cls.__init__).get(name, Any)  # type: ignore[misc]
    options = (hint, *get_args(hint))
    if not rest or any(option is Any or (get_origin(option) or option) is dict for option in options):
        return True
    return any(
        takes(option, rest) for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)
    )
