"""What must hold for data in an object store: how it is named, and that a config holds no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imagier.config import schema
from imagier.config.load import KeyPath, Mistake
from imagier.errors import find_secrets, hide_secrets, is_secret_name

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NO_SECRET = re.compile(r"anon|cloud|browser|cache|google_default|.*\.json")
"""What gcsfs takes as a `token` that is none: ways to get one, or a file."""
_STORED = "which would be stored with the run"
_ELSEWHERE = "set it in the environment, see 'Object stores' in docs/data.md"


def is_url(root: str) -> bool:
    """Whether a root names its scheme: s3://, gs://, https://, ..."""
    return _URL.match(root) is not None


def check_remote(data: schema.Data, key_path: KeyPath) -> Iterator[Mistake]:
    """Every broken rule: where, and what to do."""
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        for position, root in enumerate(split.roots if split is not None else ()):
            if is_url(root) and split is not None and split.dataset_type not in ("object_store", "shards"):
                what = f"must be object_store or shards: a root begins with {root.partition('://')[0]}://"
                yield Mistake((*key_path, name, "dataset_type"), what, code="remote-root")
            if hide_secrets(root) != root:
                here = (*key_path, name, "roots", position)
                yield Mistake(here, f"holds a password, {_STORED}", _ELSEWHERE, "secret-in-config")
    yield from _secrets(data.storage_options, (*key_path, "storage_options"))


def _secrets(value: Any, key_path: KeyPath) -> Iterator[Mistake]:
    key = str(key_path[-1])
    is_way = key == "token" and isinstance(value, str) and _NO_SECRET.fullmatch(value)
    is_secret = is_secret_name(key) and find_secrets(value, is_secret=True) and not is_way
    if is_secret or (isinstance(value, str) and hide_secrets(value) != value):
        yield Mistake(key_path, f"is a secret, {_STORED}", _ELSEWHERE, "secret-in-config")
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _secrets(child, (*key_path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _secrets(child, (*key_path, index))
