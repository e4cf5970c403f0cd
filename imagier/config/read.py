"""From a YAML file, or a mapping, to a checked config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagier.config.check import Config, check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import Document, load, load_mapping


def read(path: Path, overrides: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """The checked config of a file, with values replaced ("section.key=value"), and lines about it for the user.

    UserError names all that is wrong with it.
    """
    return _check(load(path, overrides))


def read_mapping(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """What `read` returns, of a config that was written in Python: what a YAML file would hold, as a mapping."""
    return _check(load_mapping(tree, overrides))


def _check(document: Document) -> tuple[Config, list[str]]:
    notes = translate_legacy(document)
    return check(document), notes
