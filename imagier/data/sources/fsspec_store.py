"""Objects of the stores that fsspec reads: Google Cloud Storage, Azure, web servers, ..."""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pkgutil import resolve_name
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from imagier.data.sources.remote import CONNECT_S, READ_S, ObjectStat, explain_status, no_objects, object_replaced
from imagier.data.sources.retry import (
    DEFAULT_POLICY,
    Failure,
    Retrier,
    RetryPolicy,
    hide_passwords,
    summarize,
)
from imagier.data.sources.source import one_line
from imagier.errors import UserError, find_secrets

_STAT_THREADS = 8
_CHECK_CLIENT = "correct `roots` or storage_options"
_VERSION_FIELDS = (
    *("generation", "etag", "ETag", "Content-MD5", "Digest"),
    *("last_modified", "LastModified", "Last-Modified", "mtime", "created"),
)
"""Fields of fsspec's `info` that change with the content, the most reliable first."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Scheme:
    """What is special about the file system of a URL's scheme."""

    extra: str = ""
    """Imagier's extra that installs it."""
    status_fields: Mapping[str, str] = field(default_factory=dict)
    """Exceptions with an HTTP status, and the name of that attribute."""
    errors: tuple[str, ...] = ()
    """Other exceptions of requests, besides OSError."""
    filesystem: str = ""
    """The class to use instead of fsspec's choice."""
    is_web: bool = False
    """Its URLs quote names."""
    has_full_lists: bool = False
    """`ls` says the same about a file as `info`, so no request per file is needed."""


_AIOHTTP = {"aiohttp.ClientResponseError": "status"}
_WEB = _Scheme("http", _AIOHTTP, ("aiohttp.ClientError", "builtins.ValueError"), is_web=True)
_GOOGLE = _Scheme(
    "gcs",
    {**_AIOHTTP, "gcsfs.retry.HttpError": "code"},
    (
        *("aiohttp.ClientError", "google.auth.exceptions.GoogleAuthError", "gcsfs.retry.ChecksumError"),
        "builtins.ValueError",
    ),
    filesystem="gcsfs.core.GCSFileSystem",  # not the newer class, whose gRPC channels do not survive a fork
    has_full_lists=True,
)
_AZURE = _Scheme(
    "azure",
    {"azure.core.exceptions.HttpResponseError": "status_code"},
    ("azure.core.exceptions.AzureError",),
    has_full_lists=True,
)
_SCHEMES = {
    **dict.fromkeys(("http", "https"), _WEB),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("az", "abfs", "abfss"), _AZURE),
}


@dataclass(frozen=True)
class _Connection:
    """The file system of one process, and the exceptions of its requests."""

    filesystem: Any
    root: str
    """The root in the file system's spelling."""
    errors: tuple[type[Exception], ...]
    status_fields: Mapping[type[Exception], str]

    def status(self, error: BaseException) -> int | None:
        """The HTTP status of an exception, or the one with its meaning; None if there is none."""
        for cls, name in self.status_fields.items():
            if isinstance(error, cls) and getattr(error, name):
                return int(getattr(error, name))
        if isinstance(error, PermissionError):
            return 403
        return 404 if isinstance(error, FileNotFoundError) else None

    def stat(self, path: str) -> ObjectStat | None:
        """Current size and version; None if the server does not send the size."""
        self.filesystem.invalidate_cache()
        return _object_stat(self.filesystem.info(path))


class FsspecStore:
    """The objects below a URL.

    Every process makes its own file system: fsspec's event loops do not survive a fork. fsspec cannot read a given
    version, so a second request after each partial read checks that the object is still the listed one.
    """

    def __init__(self, root: str, options: Mapping[str, Any], policy: RetryPolicy = DEFAULT_POLICY) -> None:
        """root: a URL. options: arguments of fsspec's file system (`storage_options`).

        UserError if the package for the scheme is not installed, or refuses the options.
        """
        self.root = root.rstrip("/")
        self._protocol, _, rest = self.root.partition("://")
        self._scheme = _SCHEMES.get(self._protocol, _Scheme())
        if self._scheme.is_web and ("?" in root or "#" in root):
            what, advice = "a root cannot have a query", "write the address of a folder"
            raise UserError(what, where=self.where(""), advice=advice, code="root-with-query")
        path = rest.partition("/")[2]
        self.path = unquote(path) if self._scheme.is_web else path
        self.options = dict(options)
        self._retrier = Retrier(policy)
        self._connections: dict[int, _Connection] = {}
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_connections": {}}

    @cached_property
    def address(self) -> str:
        return f"{json.dumps(self.options, sort_keys=True, default=str)} {self.root}/"

    def where(self, name: str) -> str:
        return one_line(f"{hide_passwords(self.root)}/{name}")

    def connect(self) -> bool:
        return bool(self._connect().filesystem.async_impl)  # others may keep one connection, which threads would mix up

    def list_objects(self) -> dict[str, ObjectStat]:
        def list_folder(connection: _Connection) -> dict[str, ObjectStat | None]:
            connection.filesystem.invalidate_cache()
            try:
                entries = connection.filesystem.ls(f"{connection.root}/", detail=True)
            except FileNotFoundError:
                return {}
            return dict(self._parse_entries(entries))

        found = self._request("", list_folder)
        if not found:
            advice = "check `roots`, and that the server lists its folders" if self._scheme.is_web else "check `roots`"
            raise no_objects(self.where(""), advice)
        unknown = [name for name, stat in found.items() if stat is None]
        with ThreadPoolExecutor(_STAT_THREADS) as threads:
            stats = {**found, **dict(zip(unknown, threads.map(self._stat, unknown)))}
        return {name: stat for name, stat in sorted(stats.items()) if stat is not None}

    def read(self, name: str) -> bytes:
        return self._request(name, lambda connection: connection.filesystem.cat_file(self._path(connection, name)))

    def read_range(self, name: str, offset: int, length: int, stat: ObjectStat) -> bytes:
        def read(connection: _Connection) -> tuple[bytes, ObjectStat | None]:
            path = self._path(connection, name)
            data = connection.filesystem.cat_file(path, start=offset, end=offset + length)
            return data, connection.stat(path)  # after the read, so that it is the version of these bytes

        data, now = self._request(name, read)
        if now != stat:
            raise object_replaced(self.where(name))
        if len(data) == stat.size:  # a server without range requests sends the whole object
            return data[offset : offset + length] if length < stat.size else data
        if len(data) != length:
            what = f"the server sent {len(data):,} bytes instead of {length:,}"
            raise UserError(what, where=self.where(name), advice="copy the set to another server", code="wrong-range")
        return data

    def _parse_entries(self, entries: list[dict[str, Any]]) -> Iterator[tuple[str, ObjectStat | None]]:
        for entry in entries:
            path = entry["name"]
            is_link = self._scheme.is_web and ("?" in path or "#" in path)  # links that sort the list
            if entry["type"] == "file" and not is_link:
                name = posixpath.basename(path)
                stat = _object_stat(entry) if self._scheme.has_full_lists else None
                yield (unquote(name) if self._scheme.is_web else name), stat

    def _stat(self, name: str) -> ObjectStat:
        stat = self._request(name, lambda connection: connection.stat(self._path(connection, name)))
        if stat is None:
            what, advice = "the server does not send its size", "copy the set to another server"
            raise UserError(what, where=self.where(name), advice=advice, code="unknown-size")
        return stat

    def _path(self, connection: _Connection, name: str) -> str:
        return f"{connection.root}/{quote(name) if self._scheme.is_web else name}"

    def _request(self, name: str, request: Callable[[_Connection], T]) -> T:
        """The result of a request, which is repeated while that may help."""
        connection = self._connect()
        return self._retrier.run(
            lambda: request(connection), connection.errors, lambda error: self._explain(error, connection, name)
        )

    def _explain(self, error: Exception, connection: _Connection, name: str) -> Failure:
        where = self.where(name)
        # The file system for web servers raises FileNotFoundError for everything; the cause is the actual error.
        cause = error.__cause__ if isinstance(error.__cause__, connection.errors) else error
        status = connection.status(cause)
        failure = explain_status(status, where)
        if failure is not None:
            return failure
        if status in (401, 403):
            advice = "give credentials for it; see 'Object stores' in docs/data.md"
            denied = UserError(f"no permission ({status})", where=where, advice=advice, code="no-permission")
            return Failure(denied, is_transient=False)
        what = self._summarize(cause)
        if status is not None:
            return Failure(UserError(what, where=where, code="request-refused"), is_transient=False)
        # Libraries raise plain OSError or ValueError to refuse a request; the network raises subclasses.
        is_lost = type(cause) not in (OSError, ValueError)
        advice = "check the network, and `roots`" if is_lost else "check `roots` and storage_options"
        lost = UserError(what, where=where, advice=advice, code="server-unreachable" if is_lost else "request-refused")
        return Failure(lost, is_transient=is_lost, is_answer=False)

    def _connect(self) -> _Connection:
        """The connection of this process. The parent's is kept, but not used."""
        connection = self._connections.get(os.getpid())
        if connection is None:
            connection = self._connections[os.getpid()] = self._make_connection()
        return connection

    def _make_connection(self) -> _Connection:
        own = {"skip_instance_cache": True, "use_listings_cache": False}
        errors: tuple[type[Exception], ...] = (OSError, asyncio.TimeoutError)
        try:
            from fsspec.core import url_to_fs

            options = self._all_options()
            if self._scheme.is_web:
                options = _web_options(options)
            status_fields = {resolve_name(name): attribute for name, attribute in self._scheme.status_fields.items()}
            errors = (*errors, *map(resolve_name, self._scheme.errors), *status_fields)
            if self._scheme.filesystem:
                filesystem = resolve_name(self._scheme.filesystem)(**{**options, **own})
                root = filesystem._strip_protocol(self.root)
            else:
                filesystem, root = url_to_fs(self.root, **{**options, **own})
        except ImportError as error:
            raise self._cannot_open(error, self._install_advice(), "not-installed") from error
        except (ValueError, TypeError) as error:
            raise self._cannot_open(error, _CHECK_CLIENT, "bad-client") from error
        except errors as error:
            raise self._cannot_open(error, _CHECK_CLIENT, "bad-client") from error
        return _Connection(filesystem, root.rstrip("/"), errors, status_fields)

    def _all_options(self) -> dict[str, Any]:
        """The options, and those of fsspec's own configuration (FSSPEC_HTTP in the environment, ~/.config/fsspec)."""
        from fsspec.config import conf

        schemes = ("http", "https") if self._scheme.is_web else (self._protocol,)
        configured = {key: value for scheme in schemes for key, value in conf.get(scheme, {}).items()}
        headers = {**configured.get("headers", {}), **self.options.get("headers", {})}
        return {**configured, **self.options, **({"headers": headers} if headers else {})}

    def _cannot_open(self, error: Exception, advice: str, code: str) -> UserError:
        return UserError(self._summarize(error), where=self.where(""), advice=advice, code=code)

    def _summarize(self, error: Exception) -> str:
        return summarize(error, find_secrets(self._all_options()))

    def _install_advice(self) -> str:
        extra = self._scheme.extra
        return f"run: pip install 'imagier[{extra}]'" if extra else "install the package that fsspec needs for it"


def _web_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the file system for web servers, without compression and with timeouts."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
    headers = {"Accept-Encoding": "identity", **options.get("headers", {})}
    return {**options, "headers": headers, "client_kwargs": {"timeout": timeout, **options.get("client_kwargs", {})}}


def _object_stat(info: Mapping[str, Any]) -> ObjectStat | None:
    """From fsspec's `info` about a file; None if it lacks the size."""
    if info.get("size") is None:
        return None
    version = next((f"{name} {info[name]}" for name in _VERSION_FIELDS if info.get(name) is not None), "")
    return ObjectStat(int(info["size"]), version.replace('"', ""))
