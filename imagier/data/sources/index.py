"""all_filenames.json and metadata.json: what is in a store that cannot be walked, as the reference writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from imagier.errors import UserError

FILENAMES = "all_filenames.json"
"""{sequence: [name]} where the types belong together, {type: {sequence: [name]}} where each stands for itself."""
METADATA = "metadata.json"
"""{type: extension}"""

Sequences = dict[str, list[str]]
"""Names of files without extension, by sequence."""

_PAIRED = TypeAdapter(Sequences)
_UNPAIRED = TypeAdapter(dict[str, Sequences])
_EXTENSIONS = TypeAdapter(dict[str, str])


def read_index(
    filenames: bytes, metadata: bytes, where: str, mend: str = "make it with `imagier data index`"
) -> tuple[dict[str, Sequences], dict[str, str]]:
    """The sequences of every input type, in the order of the file, and the extension of each type.

    where: the folder of both files, for messages; mend: what to do. UserError if they are something else.
    """
    at = f"{where}/{METADATA}"
    extensions: dict[str, str] = _checked(_EXTENSIONS, _parsed(metadata, at, mend), at, f"{{type: extension}}; {mend}")
    at = f"{where}/{FILENAMES}"
    tree = _parsed(filenames, at, mend)
    shapes = f"{{sequence: [name]}} or {{type: {{sequence: [name]}}}}; {mend}"
    if isinstance(tree, dict) and any(isinstance(value, dict) for value in tree.values()):
        return _checked(_UNPAIRED, tree, at, shapes), extensions
    return dict.fromkeys(extensions, _checked(_PAIRED, tree, at, shapes)), extensions


def index_files(sequences: Mapping[str, Any], extensions: Mapping[str, str]) -> dict[str, str]:
    """The text of both files by name. sequences: of one of the two shapes."""
    return {FILENAMES: json.dumps(sequences, indent=4), METADATA: json.dumps(extensions, indent=4)}


def _parsed(data: bytes, where: str, mend: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise UserError(f"{where}: not JSON; {mend}") from error


def _checked(shape: TypeAdapter, tree: Any, where: str, expected: str) -> Any:
    try:
        return shape.validate_python(tree, strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: expected {expected}") from error
