"""Shows the entries "name: text" of docstrings as lists: an extension of griffe, which makes docs/api.

An entry begins a line, names an argument, and ends at the next entry or an empty line (imagier/config/descriptions.py
reads the same entries).
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ENTRY = re.compile(r"^(\w+): ?(.*)$")


class DocstringEntries(griffe.Extension):
    """Rewrites every docstring as Markdown."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Lists the arguments of a function; those of a constructor, too, where it is documented itself."""
        if func.docstring is not None:
            func.docstring.value = write_entries(func.docstring.value, {each.name for each in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Lists the arguments of a constructor that the class documents."""
        if cls.docstring is not None:
            cls.docstring.value = write_entries(cls.docstring.value, {each.name for each in cls.parameters})

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Writes `<name>` as text."""
        if attr.docstring is not None:
            attr.docstring.value = write_entries(attr.docstring.value, set())

    def on_module(self, *, mod: griffe.Module, **_: Any) -> None:
        """Writes code blocks as Markdown does."""
        if mod.docstring is not None:
            mod.docstring.value = write_entries(mod.docstring.value, set())


def write_entries(text: str, names: set[str]) -> str:
    """A docstring as Markdown: entries of these names are a list, and code after `::` is a code block."""
    lines = []
    is_entry = False
    for line in text.splitlines():
        entry = _ENTRY.match(line)
        if entry and entry[1] in names:
            lines += [] if is_entry else [""]
            lines.append(f"* `{entry[1]}`: {entry[2]}")
            is_entry = True
        else:
            is_entry = is_entry and bool(line.strip())
            lines.append(f"    {line.strip()}" if is_entry else re.sub(r"::$", ":", line))
    return "\n".join(map(_escape, lines)).strip()


def _escape(line: str) -> str:
    """`<name>` as text, not as HTML, but for lines and words of code."""
    if line.startswith("    "):
        return line
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else re.sub(r"<(?=\w)", "&lt;", part) for part in parts)
