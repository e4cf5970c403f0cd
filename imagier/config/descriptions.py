"""What each key of a config is for, read from the code that defines it, so that it is written once.

A field of a dataclass or of a typed dictionary is described by the text below it. An argument of a constructor is
described by an entry "name: text" that begins a line of the constructor's docstring, or of its class's, and goes on
until the next entry or an empty line. A unit stands at the end of either, in brackets: [pixels].
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Mapping
from typing import Any

_ENTRY = re.compile(r"^ *(\w+)(?: \(.*?\))? ?:(?: +(.*))?$")
"""Without a type, or as torch writes it, with one in parentheses."""

_TORCH_DEFAULT = re.compile(r"\s*\(default:(?:[^()]|\([^()]*\))*\)")

_UNIT = re.compile(r"\s*\[([a-z][a-z ]*)\]$")


def describe_fields(model: Any) -> Mapping[str, str]:
    """The descriptions of the keys of a dataclass or a typed dictionary, those that have one."""
    texts = dict(_attribute_docs(model))
    if dataclasses.is_dataclass(model):
        given = {f.name: f.metadata.get("description") for f in dataclasses.fields(model)}
        texts |= {name: text for name, text in given.items() if text}
    return texts


@functools.cache
def describe_arguments(cls: type) -> Mapping[str, str]:
    """The descriptions of the arguments of a constructor, those that have one."""
    names = tuple(inspect.signature(cls).parameters)
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):
        for documented in (part, vars(part).get("__init__")):
            found |= read_entries(inspect.getdoc(documented) if documented is not None else None, names)
    return found


def describe_options(function: Callable[..., Any]) -> Mapping[str, str]:
    """The descriptions of the arguments of a function, those that have one."""
    return read_entries(inspect.getdoc(function), tuple(inspect.signature(function).parameters))


def read_entries(documentation: str | None, names: Collection[str]) -> dict[str, str]:
    """The entries "name: text" of a docstring, of these names."""
    found: dict[str, str] = {}
    name = ""
    for line in (documentation or "").splitlines():
        entry = _ENTRY.match(line)
        if entry and entry[1] in names:
            name = entry[1]
            found[name] = entry[2] or ""
        elif name and line.strip():
            found[name] += f" {line}"
        else:
            name = ""
    return {name: _tidy(_TORCH_DEFAULT.sub("", text)) for name, text in found.items()}


def split_unit(description: str) -> tuple[str, str]:
    """A description without its unit, and the unit, which may be empty."""
    match = _UNIT.search(description)
    return (description, "") if match is None else (description[: match.start()], match[1])


@functools.cache
def _attribute_docs(model: Any) -> Mapping[str, str]:
    """The texts below the fields of a class and of those that it inherits from."""
    found: dict[str, str] = {}
    for part in reversed(getattr(model, "__mro__", ())):
        if part.__module__.partition(".")[0] not in ("builtins", "typing", "typing_extensions", "abc"):
            found |= _own_attribute_docs(part)
    return found


def _own_attribute_docs(cls: Any) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # made at run time, by `constructor_model` or by the user
        return {}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
            found[field.target.id] = _tidy(inspect.cleandoc(text.value.value))  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.stmt) -> bool:
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)  # type: ignore[attr-defined]


def _tidy(text: str) -> str:
    return " ".join(text.split())
