"""Which class the section of a key names, before a document is checked."""

from __future__ import annotations

import dataclasses
from typing import Any

from imagier.config import schema
from imagier.config.find import Kind, find_or_none
from imagier.config.load import Document, KeyPath


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
