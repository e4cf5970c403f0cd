"""A web server on loopback, in a process of its own, which can be killed and started again.

`python http_server.py FOLDER PORT [--no-ranges]` serves what lies in FOLDER, and prints its port once it does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

IP = "127.0.0.1"


class HttpServer:
    """What lies in a folder, with lists of its folders, ETags and, unless told otherwise, parts of files."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.flags = flags
        self.port = 0
        self.start()
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def url(self) -> str:
        """The address of the folder, without a slash at its end."""
        return f"http://{IP}:{self.port}"

    def start(self) -> None:
        """Begins to start: from some moment on, it answers, at the port that it had before."""
        command = [sys.executable, __file__, str(self.folder), str(self.port), *self.flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def kill(self) -> None:
        """At once, with all connections."""
        self.process.kill()
        self.process.communicate()


class Faulty:
    """A way to a server on which answers get lost: it makes of each request what its plan says, then lets all pass.

    plan: "pass"; "cut" ends the answer in its middle; "hang up" sends none; a number is an HTTP status sent instead.
    """

    def __init__(self, upstream_port: int, plan: Iterable[str | int]) -> None:
        self.requests: list[str | int] = []
        steps, requests = iter(plan), self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                step = next(steps, "pass")
                requests.append(step)
                self.close_connection = True
                if step == "hang up":
                    return
                if isinstance(step, int):
                    self._send(step, {"Content-Length": "0"}, b"")
                    return
                connection = HTTPConnection(IP, upstream_port)
                connection.request(self.command, self.path, headers=dict(self.headers))
                answer = connection.getresponse()
                body = answer.read()
                headers = dict(answer.getheaders())
                if self.command == "GET":
                    headers["Content-Length"] = str(len(body))
                self._send(answer.status, headers, body[: len(body) // 2] if step == "cut" else body)

            do_HEAD = do_GET

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        self._http = ThreadingHTTPServer((IP, 0), Handler)
        Thread(target=self._http.serve_forever, daemon=True).start()
        self.port = self._http.server_port
        self.url = f"http://{IP}:{self.port}"

    def close(self) -> None:
        """Stops to listen."""
        self._http.shutdown()
        self._http.server_close()


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    has_ranges = True

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None: ...

    def _answer(self, with_body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            super().do_GET() if with_body else super().do_HEAD()
            return
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        data, stat = path.read_bytes(), path.stat()
        part, status = data, HTTPStatus.OK
        wanted = self.headers.get("Range")
        if wanted is not None and self.has_ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part, status = data[int(first) : int(last) + 1], HTTPStatus.PARTIAL_CONTENT
        if not part and data:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        self.send_response(status)
        self.send_header("ETag", f'"{stat.st_mtime_ns:x}-{stat.st_ino:x}-{stat.st_size:x}"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if with_body:
            self.wfile.write(part)


class _HandlerWithoutRanges(_Handler):
    has_ranges = False


def _serve(folder: str, port: int, has_ranges: bool) -> None:
    handler = partial(_Handler if has_ranges else _HandlerWithoutRanges, directory=folder)
    server = ThreadingHTTPServer((IP, port), handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), "--no-ranges" not in sys.argv)
