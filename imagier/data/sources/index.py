"""all_filenames.json and metadata.json: the lists of files of LMDB and object stores, in the reference's format."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from imagier.data.sources.keys import Keys
from imagier.data.sources.source import Source, find_bad_key, is_metadata
from imagier.errors import UserError

FILENAMES = "all_filenames.json"
"""Paired input types: {sequence: [name]}. Unpaired ones: {type: {sequence: [name]}}."""
METADATA = "metadata.json"
"""{type: extension}"""

PEOPLE = "all_indices.json"
"""{sequence: [number of the object, such as a person, that is meant in each file]}, optional."""

_Sequences = dict[str, list[str]]
"""Names of files, without extension, by sequence."""

_FIX = "correct it, or remove it"
_PAIRED = TypeAdapter(_Sequences)
_UNPAIRED = TypeAdapter(dict[str, _Sequences])
_EXTENSIONS = TypeAdapter(dict[str, str])
_PEOPLE = TypeAdapter(dict[str, list[NonNegativeInt]])


def read_index(
    filenames: bytes, metadata: bytes, input_types: Collection[str], where: str, advice: str, base: str | None = None
) -> tuple[dict[str, Keys], dict[str, str]]:
    """The keys of input types, in the order of the list, and all extensions. Paired types share one `Keys`.

    where: the folder of both files, for messages. advice: what to do if they are damaged. base: the path of that folder
    in its bucket, which may be in front of the sequences and is removed from them; None: take the sequences as listed.
    UserError if the files are damaged or an input type is missing.
    """
    at = f"{where}/{METADATA}"
    extensions: dict[str, str] = _validate(_EXTENSIONS, _parse(metadata, at, advice), at, "{type: extension}", advice)
    at = f"{where}/{FILENAMES}"
    tree = _parse(filenames, at, advice)
    is_paired = not (isinstance(tree, dict) and any(isinstance(value, dict) for value in tree.values()))
    shapes = "{sequence: [name]} or {type: {sequence: [name]}}"
    listed: dict[str, Any] = _validate(_PAIRED if is_paired else _UNPAIRED, tree, at, shapes, advice)
    known = extensions.keys() if is_paired else listed.keys() & extensions.keys()
    for input_type in input_types:
        if input_type not in known:
            what, has = f"lists no input type {input_type!r}", f"it has: {', '.join(sorted(known)) or 'none'}"
            raise UserError(what, where=at, advice=has, code="missing-input-type")
    if is_paired:
        root = None if base is None else _find_root(listed, base)
        return dict.fromkeys(input_types, _make_keys(listed, root, next(iter(input_types)), at, advice)), extensions
    root = None if base is None else ""
    return {name: _make_keys(listed[name], root, name, at, advice) for name in input_types}, extensions


def read_people(source: Source, keys: Iterable[str]) -> dict[str, int]:
    """Who is meant in each frame, by its key; {} if the root of a source has no such list.

    keys: those of all frames, in the order of the source, which is that of the list. UserError if the list is damaged,
    or does not fit.
    """
    data = source.read_beside(PEOPLE)
    if data is None:
        return {}
    shape = "{sequence: [number from 0 on, of each frame]}"
    people: dict[str, list[int]] = _validate(_PEOPLE, _parse(data, PEOPLE, _FIX), PEOPLE, shape, _FIX)
    sequences: dict[str, list[str]] = {}
    for key in keys:
        sequences.setdefault(key.rpartition("/")[0], []).append(key)
    if sequences.keys().isdisjoint(people):
        what = f"names no sequence that is there, such as {next(iter(sequences))!r}"
        raise UserError(what, where=PEOPLE, advice=_FIX, code="bad-index")
    for name, numbers in people.items():
        if name in sequences and len(numbers) != len(sequences[name]):
            what = f"names {len(numbers)} people for {name}, which has {len(sequences[name])} frames"
            raise UserError(what, where=PEOPLE, advice=_FIX, code="bad-index")
    listed = [(name, numbers) for name, numbers in people.items() if name in sequences]
    return {key: number for name, numbers in listed for key, number in zip(sequences[name], numbers)}


def dump_index(sequences: Mapping[str, Any], extensions: Mapping[str, str]) -> dict[str, str]:
    """The text of both files by name. sequences: see `FILENAMES`."""
    return {FILENAMES: json.dumps(sequences, indent=4), METADATA: json.dumps(extensions, indent=4)}


def _parse(data: bytes, where: str, advice: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; brackets nested too deeply
        raise UserError("not JSON", where=where, advice=advice, code="not-json") from error


def _validate(shape: TypeAdapter, tree: Any, where: str, expected: str, advice: str) -> Any:
    try:
        return shape.validate_python(tree, strict=True)
    except ValidationError as error:
        raise UserError(f"expected {expected}", where=where, advice=advice, code="bad-index") from error


def _make_keys(sequences: _Sequences, root: str | None, input_type: str, where: str, advice: str) -> Keys:
    """root: what to remove from the front of the sequences; None: leave them as listed."""
    keys = [
        f"{path if root is None else _remove_root(path, root)}/{name}"
        for path, names in sequences.items()
        for name in names
        if not is_metadata(f"{path}/{name}")
    ]
    if not keys:
        raise UserError(f"lists no files of input type {input_type!r}", where=where, advice=advice, code="no-files")
    bad = find_bad_key(keys)
    if bad is not None:
        what = f"lists {bad!a}, which cannot be the name of a file"
        raise UserError(what, where=where, advice="correct it", code="bad-key")
    return Keys(keys)


def _find_root(sequences: _Sequences, base: str) -> str:
    """The path of the root, or its last part, if all sequences begin with it; else "". The reference lists it so."""
    listed = {_remove_root(path, "") for path in sequences}
    roots = (base, posixpath.basename(base))
    return next((root for root in roots if root and all(f"{path}/".startswith(f"{root}/") for path in listed)), "")


def _remove_root(path: str, root: str) -> str:
    """A listed sequence without the root in front, normalized: "a/b", or "." for the root itself."""
    path = posixpath.normpath(path)
    return path[len(root) :].lstrip("/") or "." if root else path
