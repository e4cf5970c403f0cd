"""Objects of an S3 bucket: one client a process, patience with what passes, one line about what does not."""

from __future__ import annotations

import inspect
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from imagier.data.sources.disk_cache import tell
from imagier.data.sources.source import one_line
from imagier.errors import UserError

_CONNECT_S, _READ_S = 10, 30
"""A server that does not answer for so long is asked again."""
_PART_BYTES = 2**24
"""What is asked for at a time of a large object."""
_TOLD_FROM_S = 4.0
"""Shorter pauses are not worth a line."""

_PASSING = frozenset({429, 500, 502, 503, 504})
"""HTTP: too busy, or broken for a while."""
_PASSING_CODES = frozenset({"RequestTimeout"})
_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """For how long a request is repeated that another time may succeed; pauses double, up to the longest."""

    total_s: float = 300.0
    first_s: float = 0.5
    longest_s: float = 20.0
    pause: Callable[[float], None] = time.sleep


PATIENCE = Patience()


@dataclass(frozen=True)
class Listed:
    """An object in a list: its bytes, and a text that is another for other bytes."""

    size: int
    version: str


def read_credentials(path: str | Path) -> dict[str, Any]:
    """Keyword arguments for a client of S3 from a JSON file, as the reference's configs name one.

    UserError if there is no such file, or if it says anything else; no value of it is ever part of a message.
    """
    where = f"aws_credentials_file: {Path(path).expanduser().absolute()}"
    try:
        found = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(str(error.strerror), where=where) from error
    except json.JSONDecodeError as error:
        raise UserError(
            "not JSON", where=f"{where}:{error.lineno}", advice="write {'aws_access_key_id': ...}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError("not a text file (UTF-8)", where=where) from error
    known = inspect.signature(_session_class().client).parameters.keys() - {"self", "service_name", "config"}
    if not isinstance(found, dict):
        raise UserError(f"expected a mapping with some of {', '.join(sorted(known))}", where=where)
    for name, value in found.items():
        if name not in known:
            raise UserError(f"unknown key {name!r}", where=where, advice=f"there are {', '.join(sorted(known))}")
        if not isinstance(value, bool if name == "use_ssl" else str) and name != "verify":
            raise UserError(f"{name}: expected {'true or false' if name == 'use_ssl' else 'text'}", where=where)
    return found


class Bucket:
    """Reads objects. Once the server has answered, a lost connection is waited for; before that, the address is wrong.

    botocore's own retries are off: they end where the body of an answer begins, and do not outlast a restart.
    """

    def __init__(self, name: str, credentials: Mapping[str, Any], patience: Patience = PATIENCE) -> None:
        """credentials: what `read_credentials` returns; what is not in it comes from where boto3 looks by itself."""
        _session_class()  # told now if it is not installed
        self.name = name
        self.patience = patience
        self._credentials = credentials
        self._answered = False
        self._client: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_client": None}  # a worker that is not forked makes its own

    @property
    def endpoint(self) -> str:
        """The address of the server."""
        return str(self._s3().meta.endpoint_url)

    def where(self, key: str) -> str:
        """What to call an object in a message."""
        return one_line(f"s3://{self.name}/{key}")

    def read(self, key: str, offset: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        """An object, or `length` bytes of it, fewer at its end. version: as listed, if no other will do.

        UserError if it cannot be read.
        """
        if length == 0:
            return b""
        which = {} if length is None else {"Range": f"bytes={offset}-{offset + length - 1}"}
        if version is not None:
            which["IfMatch"] = version
        return self._patiently(key, lambda s3: s3.get_object(Bucket=self.name, Key=key, **which)["Body"].read())

    def parts(self, key: str, listed: Listed) -> Iterator[bytes]:
        """A large object in pieces."""
        for at in range(0, listed.size, _PART_BYTES):
            yield self.read(key, at, min(_PART_BYTES, listed.size - at), listed.version)

    def list(self, prefix: str) -> dict[str, Listed]:
        """The objects whose keys begin so, without a further "/", in the order of their keys. UserError if unlisted."""

        def listed(s3: Any) -> dict[str, Listed]:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix, Delimiter="/")
            items = [item for page in pages for item in page.get("Contents", [])]
            return {item["Key"]: Listed(item["Size"], item["ETag"]) for item in items}

        return dict(sorted(self._patiently(prefix, listed).items()))

    def _patiently(self, key: str, request: Callable[[Any], T]) -> T:
        """What a request returns; it is repeated while that may help."""
        from botocore import exceptions as botocore
        from urllib3.exceptions import HTTPError

        lost = (botocore.ConnectionError, botocore.HTTPClientError, botocore.IncompleteReadError, HTTPError)
        begun, pause_s, where = time.monotonic(), self.patience.first_s, self.where(key)
        cause: Exception
        while True:
            try:
                found = request(self._s3())
                self._answered = True
                return found
            except botocore.ClientError as error:
                self._answered = True
                passes, cause = _passes(error.response), error
                line = _refusal(error.response, f"s3://{self.name}", where)
            except botocore.NoCredentialsError as error:
                passes, cause, line = False, error, f"{where}: no credentials; {_HOW_TO_GIVE_CREDENTIALS}"
            except (*lost, botocore.FlexibleChecksumError) as error:
                passes, cause = self._answered, error
                line = f"{where}: {_one_line(error)}; check the network, and endpoint_url if the server is not Amazon's"
            except botocore.BotoCoreError as error:
                passes, cause, line = False, error, f"{where}: {_one_line(error)}"
            left_s = begun + self.patience.total_s - time.monotonic()
            if not passes:
                raise UserError(line) from cause
            if left_s <= 0:
                raise UserError(str(line), advice=f"gave up after {self.patience.total_s:g} s") from cause
            if pause_s / 2 < _TOLD_FROM_S <= pause_s:
                tell(f"{line}; trying again for up to {left_s:.0f} s")
            self.patience.pause(pause_s * random.SystemRandom().uniform(0.5, 1))  # else all workers come at once
            pause_s = min(2 * pause_s, self.patience.longest_s)

    def _s3(self) -> Any:
        """The client of this process: no connection is shared over a fork."""
        made_by, client = self._client or (None, None)
        if made_by != os.getpid():
            client = self._connected()
            self._client = (os.getpid(), client)
        return client

    def _connected(self) -> Any:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        options = Config(connect_timeout=_CONNECT_S, read_timeout=_READ_S, retries={"total_max_attempts": 1})
        try:  # with a session of its own: threads must not share one while it makes a client
            return _session_class()().client("s3", config=options, **self._credentials)
        except (ValueError, BotoCoreError) as error:
            what = "correct the credentials, endpoint_url or region_name"
            raise UserError(str(_one_line(error)), where=f"s3://{self.name}", advice=what) from error


def _session_class() -> Any:
    try:
        from boto3.session import Session
    except ImportError as error:
        raise UserError("object stores are read with boto3, which is not installed: pip install imagier[s3]") from error
    return Session


_HOW_TO_GIVE_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or name a file with aws_credentials_file"
)


def _passes(answer: Mapping[str, Any]) -> bool:
    code, status = _code_and_status(answer)
    return status in _PASSING or code in _PASSING_CODES


def _refusal(answer: Mapping[str, Any], bucket: str, where: str) -> str:
    """What an answer that is an error means, and what to do."""
    code, status = _code_and_status(answer)
    if _passes(answer):
        return f"{where}: {code} ({status}), the server is busy or broken"
    if code == "NoSuchBucket":
        return f"{bucket}: no such bucket; check `roots`, and endpoint_url if the server is not Amazon's"
    if status in (412, 416):
        return f"{where}: was replaced after the run had listed it; start the run again"
    if status == 404:
        return f"{where}: no such object; check `roots`, and whether it was uploaded"
    if code in _CREDENTIALS:
        return f"{where}: the credentials are not accepted ({code}); {_HOW_TO_GIVE_CREDENTIALS}"
    if status in (401, 403):
        return f"{where}: no permission ({code}); allow s3:GetObject and s3:ListBucket to the credentials in use"
    return f"{where}: the server answers {code} ({status}); check region_name and endpoint_url"


def _code_and_status(answer: Mapping[str, Any]) -> tuple[str, int]:
    """What S3 calls an error, and HTTP's number for it."""
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
