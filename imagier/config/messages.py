"""What pydantic finds wrong with a value, as mistakes in a config."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from imagier.config import schema
from imagier.config.constructor import alternatives, hints_of, is_section, types_below
from imagier.config.find import did_you_mean
from imagier.config.load import KeyPath, Mistake

_EXPECTED = {
    "int_type": "int",
    "float_type": "number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section",
    "dataclass_type": "a section",
    "none_required": "nothing",
}


def to_json(value: Any, hints: Sequence[Any]) -> Any:
    """A value as JSON can hold it, of a type that is one of `hints`.

    JSON makes no difference between 1 and 1.0, YAML does: a whole float may stand where an int is wanted. A section
    without keys is null in YAML.
    """
    if isinstance(value, Mapping):
        return {str(key): to_json(child, list(types_below(hints, str(key)))) for key, child in value.items()}
    if isinstance(value, list):
        return [to_json(child, list(types_below(hints, i))) for i, child in enumerate(value)]
    if value is None:
        options = [option for hint in hints for option in alternatives(hint)]
        wants_section = any(is_section(option) or typing.get_origin(option) is dict for option in options)
        return {} if wants_section and type(None) not in options else None
    options = [option for hint in hints for option in alternatives(hint)]
    wants_int = int in options and float not in options
    return int(value) if wants_int and isinstance(value, float) and value.is_integer() else value


def mistakes(error: ValidationError, value: Any, model: type, others: Sequence[str] = ()) -> list[Mistake]:
    """The mistakes in a value that was checked against a dataclass, one for each place in it.

    others: keys that may stand beside those of the dataclass.
    """
    return [_mistake(items, key_path, model, others) for key_path, items in _by_place(error, value).items()]


def _by_place(error: ValidationError, value: Any) -> dict[KeyPath, list[dict[str, Any]]]:
    """pydantic's errors by their place in the file. Its own markers (of unions, of wrappers) are no part of a place."""
    groups: dict[KeyPath, list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        key_path: KeyPath = ()
        node: Any = value
        for part in item["loc"]:
            if part in (node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()):
                node = node[part]
                key_path = (*key_path, part)
            elif item["type"] in ("missing", "missing_argument") and part == item["loc"][-1]:
                key_path = (*key_path, part)
        groups.setdefault(key_path, []).append(dict(item))
    return groups


def _mistake(items: list[dict[str, Any]], key_path: KeyPath, model: type, others: Sequence[str]) -> Mistake:
    first = items[0]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = [*(others if len(key_path) == 1 else ()), *_keys_at(model, key_path[:-1])]
        return Mistake(key_path, "unknown key", did_you_mean(str(key_path[-1]), known), "unknown-key")
    if first["type"] in ("missing", "missing_keyword_only_argument", "missing_argument"):
        if _keys_at(model, key_path):
            return Mistake(key_path, "missing section", code="missing-section")
        return Mistake(key_path, "missing", "it has no default", "missing-key")
    got = f"got {first['input']!r}"
    if first["type"] == "literal_error":
        choices = first["ctx"]["expected"]
        names = [choice.strip(" '") for choice in choices.replace(" or ", ",").split(",")]
        return Mistake(key_path, f"expected {choices}, {got}", did_you_mean(str(first["input"]), names), "wrong-choice")
    expected = [_EXPECTED[item["type"]] for item in items if item["type"] in _EXPECTED]
    if expected:
        return Mistake(key_path, f"expected {' or '.join(dict.fromkeys(expected))}, {got}", code="wrong-type")
    message = first["msg"].replace("Input should", "must")
    return Mistake(key_path, f"{message[0].lower()}{message[1:]}, {got}", code="out-of-range")


def _keys_at(model: type, key_path: KeyPath) -> list[str]:
    """The keys that a dataclass knows at a place."""
    hints: list[Any] = [model]
    for key in key_path:
        hints = list(types_below(hints, key))
    options = [option for hint in hints for option in alternatives(hint) if is_section(option)]
    hints_by_key = [hints_of(option) for option in options]
    return [key for hints in hints_by_key for key, hint in hints.items() if hint != schema.Own]
