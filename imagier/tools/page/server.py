"""Offers a static folder over HTTP."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from imagier.errors import UserError

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}


class _Handler(SimpleHTTPRequestHandler):
    """Files by their types, which do not depend on the machine; no lists of folders; nothing is logged."""

    def guess_type(self, path: Any) -> str:
        return _TYPES.get(Path(path).suffix, "application/octet-stream")

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # the next page may have the same address
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(404, "File not found")

    def log_message(self, format: str, *args: Any) -> None:
        pass


def open_server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server of a folder's files that listens, and answers in `serve_forever`. port: 0 for a free one.

    UserError if the port is taken, or the host is none of this machine's.
    """
    with explain_address(host, port):
        return ThreadingHTTPServer((host, port), partial(_Handler, directory=str(folder)))


@contextmanager
def explain_address(host: str, port: int) -> Iterator[None]:
    """Turns what is raised where nothing can listen at an address into a UserError."""
    try:
        yield
    except OverflowError:
        raise UserError(
            f"{port} is no port", where="port", advice="name one from 0 to 65535", code="cannot-listen"
        ) from None
    except (OSError, UnicodeError) as error:  # a UnicodeError of a host that no name can be
        is_port = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        raise UserError(
            f"cannot listen at {host}:{port}: {getattr(error, 'strerror', error)}",
            where="port" if is_port else "host",
            advice="name another one; 0 takes a free one" if is_port else "name an IPv4 address of this machine",
            code="cannot-listen",
        ) from error
