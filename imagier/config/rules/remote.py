"""What must hold for data in an object store: how it is named, and that a config holds no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imagier.config import schema
from imagier.config.load import KeyPath, Mistake

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@|(?:https?|ftps?)://(?:[^/@\s]+@|[^/@:\s]*:(?!\d+(?:/|$))[^@\s]*@)")
_SECRET_KEY = re.compile(
    r"secret|passw|token|credential|authorization|cookie|signature|^sig$|sas|connection_string|(access|account|api)_?key|^key$",
    re.IGNORECASE,
)
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
            if _has_secret(root):
                here = (*key_path, name, "roots", position)
                yield Mistake(here, f"holds a password, {_STORED}", _ELSEWHERE, "secret-in-config")
    yield from _secrets(data.storage_options, (*key_path, "storage_options"))


def _secrets(value: Any, key_path: KeyPath) -> Iterator[Mistake]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _secrets(child, (*key_path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _secrets(child, (*key_path, index))
    elif isinstance(value, str) and (_has_secret(value) or _is_secret(str(key_path[-1]), value)):
        yield Mistake(key_path, f"is a secret, {_STORED}", _ELSEWHERE, "secret-in-config")


def _has_secret(address: str) -> bool:
    """Whether an address holds a password, or a token in its query."""
    query = re.findall(r"[?&]([^=&]+)=", address)
    return _PASSWORD.search(address) is not None or any(_SECRET_KEY.search(name) for name in query)


def _is_secret(key: str, value: str) -> bool:
    return bool(_SECRET_KEY.search(key)) and not (key == "token" and _NO_SECRET.fullmatch(value))
