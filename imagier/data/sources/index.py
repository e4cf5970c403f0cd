"""all_filenames.json and metadata.json: what is in a store that cannot be walked, as the reference writes them."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from imagier.data.sources.keys import Keys
from imagier.data.sources.source import wrong_key
from imagier.errors import UserError

FILENAMES = "all_filenames.json"
"""{sequence: [name]} where the types belong together, {type: {sequence: [name]}} where each stands for itself."""
METADATA = "metadata.json"
"""{type: extension}"""

_Sequences = dict[str, list[str]]
"""Names of files without extension, by sequence."""

_PAIRED = TypeAdapter(_Sequences)
_UNPAIRED = TypeAdapter(dict[str, _Sequences])
_EXTENSIONS = TypeAdapter(dict[str, str])


def read_index(
    filenames: bytes, metadata: bytes, kinds: Collection[str], where: str, mend: str, base: str | None = None
) -> tuple[dict[str, Keys], dict[str, str]]:
    """The keys of input types, in the order of the file, and all extensions. Types that belong together share theirs.

    where: the folder of both files, for messages; mend: what to do if they are something else. base: the path of that
    folder in a bucket, as far as sequences may be listed with it in front; without it they are keys as they stand.
    UserError if the files are something else, or lack a type.
    """
    at = f"{where}/{METADATA}"
    extensions: dict[str, str] = _checked(_EXTENSIONS, _parsed(metadata, at, mend), at, f"{{type: extension}}; {mend}")
    at = f"{where}/{FILENAMES}"
    tree = _parsed(filenames, at, mend)
    is_paired = not (isinstance(tree, dict) and any(isinstance(value, dict) for value in tree.values()))
    shapes = f"{{sequence: [name]}} or {{type: {{sequence: [name]}}}}; {mend}"
    listed: dict[str, Any] = _checked(_PAIRED if is_paired else _UNPAIRED, tree, at, shapes)
    there = extensions.keys() if is_paired else listed.keys() & extensions.keys()
    for kind in kinds:
        if kind not in there:
            advice = f"it has: {', '.join(sorted(there)) or 'none'}"
            raise UserError(f"lists no input type {kind!r}", where=at, advice=advice, code="missing-input-type")
    if is_paired:
        root = None if base is None else _root_in(listed, base)
        return dict.fromkeys(kinds, _keys(listed, root, next(iter(kinds)), at, mend)), extensions
    root = None if base is None else ""
    return {kind: _keys(listed[kind], root, kind, at, mend) for kind in kinds}, extensions


def index_files(sequences: Mapping[str, Any], extensions: Mapping[str, str]) -> dict[str, str]:
    """The text of both files by name. sequences: of one of the two shapes."""
    return {FILENAMES: json.dumps(sequences, indent=4), METADATA: json.dumps(extensions, indent=4)}


def _parsed(data: bytes, where: str, mend: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; nested without end
        raise UserError("not JSON", where=where, advice=mend, code="not-json") from error


def _checked(shape: TypeAdapter, tree: Any, where: str, expected: str) -> Any:
    try:
        return shape.validate_python(tree, strict=True)
    except ValidationError as error:
        raise UserError(f"expected {expected}", where=where, code="bad-index") from error


def _keys(sequences: _Sequences, root: str | None, kind: str, at: str, mend: str) -> Keys:
    """root: what is no part of the keys; None if paths are not to be touched at all."""
    keys = [
        f"{path if root is None else _sequence(path, root)}/{name}"
        for path, names in sequences.items()
        for name in names
    ]
    if not keys:
        raise UserError(f"lists no files of input type {kind!r}", where=at, advice=mend, code="no-files")
    wrong = wrong_key(keys)
    if wrong is not None:
        what = f"lists {wrong!a}, which cannot be the name of a file"
        raise UserError(what, where=at, advice="correct it", code="bad-key")
    return Keys(keys)


def _root_in(sequences: _Sequences, base: str) -> str:
    """What all sequences begin with, if it is the path of the root, or the last part of it; else nothing.

    So the reference lists those of paired types, and those alone.
    """
    listed = {_sequence(path, "") for path in sequences}
    roots = (base, posixpath.basename(base))
    return next((root for root in roots if root and all(f"{path}/".startswith(f"{root}/") for path in listed)), "")


def _sequence(path: str, root: str) -> str:
    """A sequence as it is called in a folder ("a/b", or "." for the folder itself), from how it is listed."""
    path = posixpath.normpath(path)
    return path[len(root) :].lstrip("/") or "." if root else path
