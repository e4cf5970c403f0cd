"""Types, ranges and defaults of keys in words: "list of numbers", "from 0 to 1", "[0.0, 0.999]"."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from imagier.config.constructor import is_section
from imagier.config.load import dump_inline
from imagier.ranges import ODD

NEVER = 1_000_000_000
"""The default of times that do not come."""

_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("int", "ints"),
    float: ("number", "numbers"),
    str: ("text", "texts"),
    dict: ("section", "sections"),
    list: ("list", "lists"),
    Any: ("anything", "anything"),
    type(None): ("null", "null"),
}
"""Types, one and many. They are called as in messages about wrong values."""


def name_type(hint: Any) -> str:
    """What a value can be, without its range."""
    return " or ".join(dict.fromkeys(_name(option) for option in _options(hint)))


def name_range(hint: Any) -> str:
    """The numbers that a value can be: "> 0 and odd", "from 0 to 1"; empty for any."""
    limits = (_name_limits(option.notes) for option in _options(hint))
    return " or ".join(dict.fromkeys(text for text in limits if text))


def name_default(default: Any) -> str:
    """A default as a config would give it; empty for that of a section, whose keys have theirs."""
    if dataclasses.is_dataclass(default):
        return ""
    return f"{NEVER} (never)" if type(default) is int and default == NEVER else dump_inline(default)


def inner_section(hint: Any) -> tuple[Any, tuple[str, ...]] | None:
    """The section below a key, and what leads to it: names of a mapping, places in a list. None if there is none."""
    for option in _options(hint):
        if is_section(option.type):
            return option.type, ()
        origin = typing.get_origin(option.type)
        if origin in (list, dict) and (below := inner_section(typing.get_args(option.type)[-1])) is not None:
            return below[0], ("N" if origin is list else "NAME", *below[1])
    return None


class _Option(NamedTuple):
    """One of the types that a value can have, without its annotations, and these."""

    type: Any
    notes: tuple[Any, ...]


def _options(hint: Any, notes: tuple[Any, ...] = ()) -> Iterator[_Option]:
    """The members of a union, or the type itself."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        yield from _options(arguments[0], (*notes, *arguments[1:]))
    elif origin in (typing.Union, types.UnionType):
        for option in arguments:
            yield from _options(option, notes)
    else:
        yield _Option(hint, notes)


def _name(option: _Option, is_many: bool = False) -> str:
    origin, arguments = typing.get_origin(option.type), typing.get_args(option.type)
    if origin is Literal:
        return "one of " + ", ".join(map(dump_inline, arguments))
    if is_section(option.type):
        return _WORDS[dict][is_many]
    if not isinstance(origin, type):
        name = getattr(option.type, "__name__", str(option.type))
        return _WORDS.get(option.type, (name, name))[is_many]
    many = "s" if is_many else ""
    if issubclass(origin, Mapping):
        return _add_limits(f"section{many} of {_name_many(arguments[1])} by name", arguments[1])
    if origin is tuple and Ellipsis not in arguments:
        return _add_limits(f"list{many} of {len(arguments)} {_name_many(arguments[0])}", arguments[0])
    length = _find(option.notes, "min_length")
    count = f"{length} " if length is not None and length == _find(option.notes, "max_length") else ""
    return _add_limits(f"list{many} of {count}{_name_many(arguments[0])}", arguments[0])


def _name_many(hint: Any) -> str:
    return " or ".join(dict.fromkeys(_name(option, is_many=True) for option in _options(hint)))


def _add_limits(text: str, inner: Any) -> str:
    """The name of a list or a section, with the range of what is in it."""
    limits = name_range(inner)
    return f"{text}, each {limits}" if limits else text


def _name_limits(notes: Sequence[Any]) -> str:
    low, high = _find(notes, "ge"), _find(notes, "le")
    if low is not None and high is not None:
        return f"from {low} to {high}"
    signs = ((">=", low), (">", _find(notes, "gt")), ("<=", high), ("<", _find(notes, "lt")))
    words = [f"{sign} {limit}" for sign, limit in signs if limit is not None]
    return " and ".join([*words, "odd"] if ODD in notes else words)


def _find(notes: Sequence[Any], name: str) -> Any:
    """A constraint of pydantic's `Field` among annotations, or None."""
    inside = [part for note in notes for part in (note, *getattr(note, "metadata", ()))]
    return next((getattr(part, name) for part in inside if getattr(part, name, None) is not None), None)
