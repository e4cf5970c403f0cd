"""From a key as people write it ("gen_opt.lr", "data.train.augmentations.rotate") to its description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imagier.config.describe import OPTIMIZER_SECTION, Key, describe_section, list_sections
from imagier.config.find import did_you_mean
from imagier.config.load import Document, KeyPath, join_keys
from imagier.config.lookup import kind_at, type_at
from imagier.errors import UserError

_SPLITS = ("train", "val", "test")


def find_keys(name: str, document: Document | None = None) -> tuple[list[Key], list[Key]]:
    """What there is at a dotted place of a config: the key itself, once for each meaning, and the keys below it.

    document: a config, for keys of the user's own types. UserError if there is nothing.
    """
    of_user = () if document is None else _list_dotted_types(document)
    parts = _standardize(name.split("."))
    keys = [key for section in _sections_of(parts[0]) for key in describe_section(section, of_user)]
    for path in _spellings(parts):
        for hidden in ((), ("N", "NAME"), ("N",)):  # places in lists, and names of input types, may be left out
            rests = [(key, _rest_of(key, path, hidden)) for key in keys]
            if any(rest is not None for _, rest in rests):
                return [key for key, rest in rests if rest == 0], [key for key, rest in rests if rest]
    raise UserError("no such key", where=name, advice=_advise(name), code="unknown-key")


def locate(document: Document, name: str) -> KeyPath:
    """The place of a key in a document. Entries of a list may be named by the one key that they hold."""
    key_path: KeyPath = ()
    for part in name.split("."):
        node = document.get(key_path)
        if isinstance(node, list):
            named = next((i for i, entry in enumerate(node) if isinstance(entry, dict) and part in entry), None)
            key_path = (*key_path, int(part)) if part.isdecimal() else (*key_path, *_not_none(named), part)
        else:
            key_path = (*key_path, part)
    return key_path


def select_read(document: Document, key_path: KeyPath, keys: Sequence[Key]) -> list[Key]:
    """Of the meanings of a key, those that the type in a document gives it. None of them: it does not read the key."""
    found = kind_at(key_path) if len(key_path) > 1 else None
    named = type_at(document, key_path) if found is not None else None
    if key_path[0] == "inference_args":
        named = document.get(("trainer", "type"))
    return [key for key in keys if not key.readers or named is None or named in key.readers]


def _list_dotted_types(document: Document) -> tuple[str, ...]:
    named = (value for key_path, value in document.walk() if key_path[-1] == "type")
    return tuple(dict.fromkeys(name for name in named if isinstance(name, str) and "." in name))


def _not_none(value: Any) -> tuple[Any, ...]:
    return () if value is None else (value,)


def _standardize(parts: Sequence[str]) -> list[str]:
    """A path as those of keys: with the placeholders for players and splits."""
    first, *others = parts
    if first.endswith("_opt"):
        first = OPTIMIZER_SECTION
    if first == "test_data" and others:
        first = "data"
    if first == "data" and others and others[0] in _SPLITS:
        others = ["SPLIT", *others[1:]]
    return [first, *others]


def _sections_of(first: str) -> list[str]:
    """The sections in which keys can be whose path begins so."""
    return [section for section in list_sections() if section in ("", first)]


def _spellings(parts: list[str]) -> list[list[str]]:
    """A key of the section `data` may also stand in a split."""
    return [parts, [parts[0], *parts[2:]]] if parts[1:2] == ["SPLIT"] and len(parts) > 2 else [parts]


def _rest_of(key: Key, path: Sequence[str], hidden: Sequence[str]) -> int | None:
    """How many keys lead on from a path to this key; None if it is not there."""
    template = [part for part in key.path if part not in hidden]
    if len(template) < len(path):
        return None
    fits = all(
        part == given or part == "NAME" or (part == "N" and given.isdecimal()) for part, given in zip(template, path)
    )
    return len(template) - len(path) if fits else None


def _advise(name: str) -> str:
    """The key that may be meant: one of its section, or one of another with the same end."""
    start, _, last = name.partition(".")[0], *name.rpartition(".")[1:]
    everywhere = list(dict.fromkeys(_spell(key) for section in list_sections() for key in describe_section(section)))
    inside = [_respell(known, start) for known in everywhere if _respell(known, start).startswith(f"{start}.")]
    advice = did_you_mean(name, inside)
    same_end = [known for known in everywhere if known.rpartition(".")[2] == last]
    if not advice and same_end:
        return f"did you mean {' or '.join(same_end[:4])}?"
    return advice or did_you_mean(name, [*list_sections()[1:], *everywhere])


def _spell(key: Key) -> str:
    """A path that a config can have."""
    shown = {OPTIMIZER_SECTION: "gen_opt", "SPLIT": "train", "N": "0", "NAME": "images"}
    return join_keys(tuple(shown.get(part, part) for part in key.path))


def _respell(known: str, start: str) -> str:
    """With the player's own section of an optimizer."""
    is_optimizer = start.endswith("_opt") and known.startswith("gen_opt.")
    return f"{start}{known.removeprefix('gen_opt')}" if is_optimizer else known
