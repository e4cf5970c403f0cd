"""`imagier explain KEY`: what a key of a config is for, its type, range, default, unit, and what reads it."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from imagier.cli.imports import import_quickly

if TYPE_CHECKING:
    from imagier.config.describe import Key
    from imagier.config.load import Document

_WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("key", nargs="?", metavar="KEY", help="a key, as gen_opt.lr, or a section, as gen; default: lists the sections")
    add("--config", type=Path, metavar="FILE", help="also show the value in this config, and where it comes from")
    add("--markdown", action="store_true", help="print the reference of all keys, docs/keys.md")


def run(args: argparse.Namespace) -> int:
    """Prints the explanation; returns the exit status."""
    with import_quickly():  # of whatever the key needs
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    if args.markdown:
        from imagier.tools.keys_page import render_page

        print(render_page(), end="")
        return 0
    if args.key is None:
        from imagier.config.describe import describe_section, list_sections

        print("Sections:", ", ".join(list_sections()[1:]))
        print("Keys outside of sections:", ", ".join(key.name for key in describe_section("") if len(key.path) == 1))
        return 0
    from imagier.config.find_keys import find_keys

    document = None if args.config is None else _read(args.config)
    meanings, below = find_keys(args.key, document)
    print(args.key)
    if document is not None:
        meanings = _explain_value(document, args.key, meanings)
    for key in meanings:
        _print_meaning(key)
    if below:
        _print_list(below)
    return 0


def _read(path: Path) -> Document:
    from imagier.config.legacy.translate import translate_legacy
    from imagier.config.load import load

    document = load(path)
    translate_legacy(document)
    return document


def _explain_value(document: Document, name: str, meanings: list[Key]) -> list[Key]:
    """Prints the value of a key in a config. Returns those of its meanings that hold there."""
    from imagier.config.find_keys import locate, select_read
    from imagier.config.load import dump_inline
    from imagier.errors import hide_secrets

    key_path = locate(document, name)
    read = select_read(document, key_path, meanings)
    if meanings and not read:
        _print_fact("here", f"not read by what {document.name} trains")
        return meanings
    if isinstance(document.get(key_path), dict):
        _print_fact("here", f"a section ({document.origin(key_path)})")
    elif document.has(key_path):
        _print_fact("here", hide_secrets(f"{dump_inline(document.get(key_path))} ({document.origin(key_path)})"))
    elif read and read[0].default:
        _print_fact("here", f"{read[0].default} (the default)")
    elif read:
        is_missing = read[0].is_required and document.has(key_path[:-1])
        _print_fact("here", "missing" if is_missing else "not given")
    return read


def _print_meaning(key: Key) -> None:
    text = key.description or "Its class does not say what it is for."
    print(_wrap(text, "  ", "  "))
    _print_fact("type", f"{key.type}, {key.range}" if key.range else key.type)
    if key.unit:
        _print_fact("unit", key.unit)
    if key.default or key.is_required:
        _print_fact("default", "none: it must be given" if key.is_required else key.default)
    _print_fact("read by", f"{', '.join(key.readers)} ({key.noun})" if key.readers else "all")


def _print_fact(name: str, text: str) -> None:
    print(_wrap(text, f"    {name:<10}", " " * 14))


def _print_list(keys: list[Key]) -> None:
    """One line for each key, with the types that read it where not all do."""
    width = min(48, max(len(key.name) for key in keys))
    indent = " " * (width + 4)
    for key in keys:
        first = key.description.partition(". ")[0].removesuffix(".")
        readers = f" [{', '.join(key.readers)}]" if key.readers else ""
        if len(key.name) > width:
            print(f"  {key.name}")
        start = indent if len(key.name) > width else f"  {key.name:<{width}}  "
        print(_wrap(f"{first}{readers}", start, indent))


def _wrap(text: str, first: str, rest: str) -> str:
    """``text`` in lines of ``_WIDTH`` that start with ``first`` and ``rest``. Paths stay whole, to be copied."""
    return textwrap.fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
