"""From a YAML file to a checked config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagier.config.check import Config, check
from imagier.config.legacy import translate_legacy
from imagier.config.load import load


def read(path: Path, overrides: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """The checked config of a file, with values replaced ("section.key=value"), and what is to be told about it.

    UserError names all that is wrong with it.
    """
    document = load(path, overrides)
    notes = translate_legacy(document)
    return check(document), notes
