"""Objects of an S3 bucket, read with boto3.

Not with s3fs: it cannot read a given version of an object, it hides S3's error codes, and it pins versions of botocore
that conflict with those of boto3, moto and the AWS command line.
"""

from __future__ import annotations

import inspect
import json
import os
import posixpath
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from imagier.data.sources.remote import CONNECT_S, MOST_CONNECTIONS, READ_S, ObjectStat, explain_status, no_objects
from imagier.data.sources.retry import (
    DEFAULT_POLICY,
    Failure,
    Retrier,
    RetryPolicy,
    hide_passwords,
    summarize,
)
from imagier.data.sources.source import one_line
from imagier.errors import UserError

SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_CREDENTIAL_CODES = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_GIVE_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or name a file with aws_credentials_file"
)
_CHECK_CLIENT = "correct the credentials, endpoint_url or region_name"

T = TypeVar("T")


def read_credentials(path: str | Path) -> dict[str, Any]:
    """Arguments of boto3's client from a JSON file, the reference's `aws_credentials_file`.

    UserError if there is no such file or it holds anything else. Messages never contain a value from it.
    """
    where = f"aws_credentials_file: {Path(path).expanduser().absolute()}"
    try:
        arguments = json.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(str(error.strerror), where=where, code="cannot-read-credentials") from error
    except json.JSONDecodeError as error:
        where, advice = f"{where}:{error.lineno}", 'write {"aws_access_key_id": ...}'
        raise UserError("not JSON", where=where, advice=advice, code="bad-credentials-file") from error
    except UnicodeDecodeError as error:
        raise UserError("not a text file (UTF-8)", where=where, code="bad-credentials-file") from error
    if not isinstance(arguments, dict):
        known = ", ".join(_client_arguments())
        raise UserError(f"expected a mapping with some of {known}", where=where, code="bad-credentials-file")
    check_client_arguments(arguments, where)
    return arguments


def check_client_arguments(arguments: Mapping[str, Any], where: str) -> None:
    """UserError for an argument that boto3's client does not have, or of the wrong type."""
    known = _client_arguments()
    for name, value in arguments.items():
        if name not in known:
            advice = f"the keys are {', '.join(known)}"
            raise UserError(f"unknown key {name!r}", where=where, advice=advice, code="unknown-key")
        if not isinstance(value, bool if name == "use_ssl" else str) and name != "verify":
            expected = "true or false" if name == "use_ssl" else "text"
            raise UserError(f"{name}: expected {expected}", where=where, code="wrong-type")


class S3Store:
    """The objects below a path of a bucket.

    botocore's own retries are off: they do not cover the body of an answer, and are too short for a restart.
    """

    def __init__(self, root: str, arguments: Mapping[str, Any], policy: RetryPolicy = DEFAULT_POLICY) -> None:
        """root: bucket/path or s3://bucket/path. arguments: those of boto3's client.

        UserError if that cannot be the name of a bucket, or boto3 is not installed.
        """
        _session_class()
        self.bucket, _, self.path = root.removeprefix(SCHEME).rstrip("/").partition("/")
        if not _BUCKET.fullmatch(self.bucket):
            what = f"{hide_passwords(root)!r} names no bucket"
            raise UserError(what, where="roots", advice="write bucket/folder", code="bad-bucket-name")
        self._arguments = arguments
        self._retrier = Retrier(policy)
        self._client: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_client": None}  # every process makes its own

    @cached_property
    def address(self) -> str:
        return f"{self._connect().meta.endpoint_url} {self.bucket} {self._key('')}"

    def where(self, name: str) -> str:
        return one_line(f"{SCHEME}{self.bucket}/{self._key(name)}")

    def connect(self) -> bool:
        self._connect()
        return True  # clients of boto3 may be shared by threads

    def list_objects(self) -> dict[str, ObjectStat]:
        prefix = self._key("")

        def list_pages(s3: Any) -> dict[str, ObjectStat]:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
            items = [item for page in pages for item in page.get("Contents", [])]
            return {item["Key"].removeprefix(prefix): ObjectStat(item["Size"], item["ETag"]) for item in items}

        found = self._request("", list_pages)
        if not found:
            raise no_objects(self.where(""))
        return dict(sorted(found.items()))

    def read(self, name: str) -> bytes:
        return self._get(name, {})

    def read_range(self, name: str, offset: int, length: int, stat: ObjectStat) -> bytes:
        return self._get(name, {"Range": f"bytes={offset}-{offset + length - 1}", "IfMatch": stat.version})

    def _get(self, name: str, conditions: Mapping[str, str]) -> bytes:
        key = self._key(name)
        return self._request(name, lambda s3: s3.get_object(Bucket=self.bucket, Key=key, **conditions)["Body"].read())

    def _key(self, name: str) -> str:
        return posixpath.join(self.path, name)

    def _request(self, name: str, request: Callable[[Any], T]) -> T:
        """The result of a request to the client, repeated while that may help."""
        from botocore import exceptions as botocore
        from urllib3.exceptions import HTTPError

        lost = (
            *(botocore.ConnectionError, botocore.HTTPClientError, botocore.IncompleteReadError),
            *(botocore.FlexibleChecksumError, HTTPError),
        )
        where = self.where(name)

        def explain(error: Exception) -> Failure:
            if isinstance(error, botocore.ClientError):
                return _explain_answer(error.response, f"{SCHEME}{self.bucket}", where)
            if isinstance(error, botocore.NoCredentialsError):
                refused = UserError("no credentials", where=where, advice=_GIVE_CREDENTIALS, code="no-credentials")
                return Failure(refused, is_transient=False, is_answer=False)
            what = self._summarize(error)
            if not isinstance(error, lost):
                return Failure(UserError(what, where=where, code="request-failed"), is_transient=False, is_answer=False)
            advice = "check the network, and endpoint_url if the server is not Amazon's"
            unreachable = UserError(what, where=where, advice=advice, code="server-unreachable")
            return Failure(unreachable, is_transient=True, is_answer=False)

        return self._retrier.run(
            lambda: request(self._connect()), (botocore.ClientError, botocore.BotoCoreError, *lost), explain
        )

    def _connect(self) -> Any:
        """The client of this process: connections do not survive a fork."""
        owner, client = self._client or (None, None)
        if owner != os.getpid():
            client = self._make_client()
            self._client = (os.getpid(), client)
        return client

    def _make_client(self) -> Any:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        options = Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"total_max_attempts": 1},
            max_pool_connections=MOST_CONNECTIONS,
        )
        try:  # a new session, because making a client is not thread-safe
            return _session_class()().client("s3", config=options, **self._arguments)
        except (ValueError, BotoCoreError) as error:
            where = f"{SCHEME}{self.bucket}"
            raise UserError(self._summarize(error), where=where, advice=_CHECK_CLIENT, code="bad-client") from error

    def _summarize(self, error: Exception) -> str:
        names = ("aws_secret_access_key", "aws_session_token")
        return summarize(error, [self._arguments[name] for name in names if self._arguments.get(name)])


def _session_class() -> Any:
    try:
        from boto3.session import Session
    except ImportError as error:
        what = "S3 is read with boto3, which is not installed"
        raise UserError(what, advice="run: pip install 'imagier[s3]'", code="not-installed") from error
    return Session


def _client_arguments() -> list[str]:
    parameters = inspect.signature(_session_class().client).parameters
    return sorted(parameters.keys() - {"self", "service_name", "config"})


def _explain_answer(answer: Mapping[str, Any], bucket: str, where: str) -> Failure:
    """The meaning of an error that the server sent."""
    code, status = answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]
    if code == "NoSuchBucket":
        advice = "check `roots`, and endpoint_url if the server is not Amazon's"
        missing = UserError("no such bucket", where=bucket, advice=advice, code="no-such-bucket")
        return Failure(missing, is_transient=False)
    # S3 sends 400 with RequestTimeout, where HTTP has 408.
    failure = explain_status(408 if code == "RequestTimeout" else status, where, f"{code} ({status})")
    return failure or Failure(_refusal(code, status, where), is_transient=False)


def _refusal(code: str, status: int, where: str) -> UserError:
    if code in _CREDENTIAL_CODES:
        what = f"the credentials are not accepted ({code})"
        return UserError(what, where=where, advice=_GIVE_CREDENTIALS, code="bad-credentials")
    if status in (401, 403):
        advice = "allow s3:GetObject and s3:ListBucket for these credentials"
        return UserError(f"no permission ({code})", where=where, advice=advice, code="no-permission")
    what, advice = f"the server answers {code} ({status})", "check region_name and endpoint_url"
    return UserError(what, where=where, advice=advice, code="request-refused")
