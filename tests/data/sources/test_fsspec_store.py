"""Requests through fsspec are retried, or end with a one-line error without secrets."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from fsspec.config import conf
from fsspec.implementations.memory import MemoryFileSystem
from http_server import Faulty, HttpServer
from images import write
from logs import logged
from stores import NO_RETRY, catch

from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.fsspec_store import FsspecStore
from imagier.data.sources.object_store import open_remote
from imagier.data.sources.remote import RemoteFolder
from imagier.data.sources.retry import RetryPolicy

ODD_NAMES = ["猫.bin", "a b.bin", "100%.bin", "a#b.bin", "a%20b.bin", "a+b&c.bin", "é.bin"]
DATA = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """A web server of a folder `set` with a file of 10 kB, and one `odd` with files of odd names."""
    folder = tmp_path_factory.mktemp("web")
    write(folder / "set" / "file.bin", DATA)
    for name in ODD_NAMES:
        write(folder / "odd" / name, name.encode())
    server = HttpServer(folder)
    yield server
    server.kill()


@pytest.mark.parametrize("trouble", [503, 500, 429, "cut", "hang up"])
@pytest.mark.parametrize("is_part", [False, True])
def test_transient_failures_are_retried_with_growing_pauses(
    served: HttpServer, trouble: str | int, is_part: bool
) -> None:
    way = Faulty(served.port, [])
    store = FsspecStore(f"{way.url}/set", {}, NO_RETRY)
    stat = store.list_objects()["file.bin"]
    way.close()

    way = Faulty(served.port, ["pass", *[trouble] * 3])
    pauses: list[float] = []
    store = FsspecStore(f"{way.url}/set", {}, RetryPolicy(first_s=1, longest_s=2, sleep=pauses.append))
    store.read("file.bin")
    data = store.read_range("file.bin", 100, 50, stat) if is_part else store.read("file.bin")
    assert data == (DATA[100:150] if is_part else DATA)
    assert way.requests[:5] == ["pass", *[trouble] * 3, "pass"]
    assert len(pauses) == 3 or trouble == "hang up"  # then aiohttp may ask a second time by itself
    assert all(longest / 2 <= pause <= longest for pause, longest in zip(pauses, [1, 2, 2]))
    way.close()


@pytest.mark.parametrize("step", [503, "hang up"])
def test_a_request_for_size_and_version_is_retried_too(served: HttpServer, step: str | int) -> None:
    """fsspec raises FileNotFoundError if neither of its two requests is answered."""
    way = Faulty(served.port, ["pass", step, step, "pass"])
    store = FsspecStore(f"{way.url}/set", {}, RetryPolicy(first_s=0.01))
    assert store.list_objects()["file.bin"].size == len(DATA)
    assert way.requests == ["pass", step, step, "pass"]
    way.close()


def test_an_outage_that_lasts_is_logged_and_ends_with_one_line(served: HttpServer) -> None:
    way = Faulty(served.port, ["pass"])
    store = FsspecStore(f"{way.url}/set", {}, RetryPolicy(total_s=0.2, first_s=0.01))
    store.read("file.bin")
    way.close()
    error = catch(lambda: store.read("file.bin"))
    assert (error.where, error.code) == (f"{way.url}/set/file.bin", "server-unreachable")
    assert error.advice.endswith("; gave up after 0.2 s")

    way = Faulty(served.port, [503] * 4)
    with logged() as lines:
        FsspecStore(f"{way.url}/set", {}, RetryPolicy(first_s=2, sleep=lambda s: None)).read("file.bin")
    assert len(lines) == 1 and "trying again" in lines[0]
    way.close()


# Permanent failures


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:9/set", "server-unreachable"),
        ("http://nowhere.invalid/set", "server-unreachable"),
        ("http://me:a-secret@127.0.0.1:9/set", "server-unreachable"),
        ("https://a-secret@nowhere.invalid/set", "server-unreachable"),
        ("http://host/set?sig=a-secret", "root-with-query"),
        ("SERVER/none", "no-such-object"),
        ("memory://none", "no-such-object"),
        ("no-such-protocol://set", "bad-client"),
    ],
)
def test_permanent_failures_end_at_once(served: HttpServer, url: str, code: str) -> None:
    url = url.replace("SERVER", served.url)
    options = {"headers": {"X-Token": "a-secret"}}
    error = catch(lambda: FsspecStore(url, options, NO_RETRY).read("file.bin"))
    assert error.code == code
    assert error.where and error.advice
    assert "a-secret" not in str(error)


@pytest.mark.parametrize(("status", "code"), [(401, "no-permission"), (403, "no-permission"), (400, "request-refused")])
def test_a_refusal_ends_at_once_even_after_a_success(served: HttpServer, status: int, code: str) -> None:
    way = Faulty(served.port, ["pass", status])
    store = FsspecStore(f"{way.url.replace('//', '//me:a-secret@')}/set", {}, NO_RETRY)
    store.read("file.bin")
    error = catch(lambda: store.read("file.bin"))
    assert (error.where, error.code) == (f"{way.url}/set/file.bin", code)
    assert "a-secret" not in str(error)
    way.close()


def test_contradictory_options_end_at_once(served: HttpServer) -> None:
    options = {"headers": {"Authorization": "Bearer a-secret"}}
    store = FsspecStore(f"{served.url.replace('//', '//me:a-secret@')}/set", options, NO_RETRY)
    error = catch(lambda: store.read("file.bin"))
    assert error.code == "request-refused" and "a-secret" not in str(error)


def test_a_refusal_by_a_library_is_not_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfs raises a plain OSError if permission is denied."""
    MemoryFileSystem().pipe("/refused/file.bin", DATA)
    store = FsspecStore("memory://refused", {"token": "a-secret"}, NO_RETRY)
    store.read("file.bin")

    def refuse(*_: object, **__: object) -> bytes:
        raise OSError("Forbidden: a-secret may not")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    error = catch(lambda: store.read("file.bin"))
    assert (error.what, error.code) == ("Forbidden: *** may not", "request-refused")


@pytest.mark.parametrize(
    ("url", "extra"), [("gs://bucket/set", "gcs"), ("az://box/set", "azure"), ("https://h", "http")]
)
def test_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch, url: str, extra: str) -> None:
    for package in ("gcsfs", "adlfs", "azure", "aiohttp"):
        monkeypatch.setitem(sys.modules, package, None)
    error = catch(lambda: open_remote(url, {"images": "png"}, "object_store"))
    assert error.code == "not-installed"
    assert f"'imagier[{extra}]'" in error.advice


# Reading


def test_headers_from_the_configuration_of_fsspec_are_sent_and_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So secrets stay out of the config, whose headers are added."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(dict(self.headers))
            self.send_response(403, self.headers["Authorization"])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.handle_request, daemon=True).start()
    monkeypatch.setitem(conf, "http", {"headers": {"Authorization": "Bearer a-secret"}})
    store = FsspecStore(f"http://127.0.0.1:{server.server_port}", {"headers": {"X-Project": "mine"}}, NO_RETRY)
    error = catch(lambda: store.read("file.bin"))
    assert error.code == "no-permission" and "a-secret" not in str(error)
    (headers,) = received
    assert (headers["Authorization"], headers["X-Project"]) == ("Bearer a-secret", "mine")
    server.server_close()


@pytest.mark.parametrize("store_name", ["http", "memory"])
def test_objects_with_any_name_are_listed_and_read(served: HttpServer, store_name: str) -> None:
    memory = MemoryFileSystem()
    for name in ODD_NAMES:
        memory.pipe(f"/odd/{name}", name.encode())
    folder = RemoteFolder(FsspecStore(f"{served.url}/odd" if store_name == "http" else "memory://odd", {}, NO_RETRY))
    assert folder.names() == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert folder.fetch(name) == name.encode()
        assert folder.read(name, 1, 2) == name.encode()[1:3]


def test_parts_are_read_from_a_server_without_range_requests(tmp_path: Path) -> None:
    write(tmp_path / "file.bin", DATA)
    server = HttpServer(tmp_path, "--no-ranges")
    folder = RemoteFolder(FsspecStore(server.url, {}, NO_RETRY))
    for offset, length in ((0, 10), (300, 50), (0, len(DATA)), (1, len(DATA) - 1), (len(DATA) - 3, 3)):
        assert folder.read("file.bin", offset, length) == DATA[offset : offset + length]
    server.kill()


def test_a_part_of_the_wrong_length_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    MemoryFileSystem().pipe("/short/file.bin", DATA)
    folder = RemoteFolder(FsspecStore("memory://short", {}, NO_RETRY))
    folder.names()
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: b"short")
    assert catch(lambda: folder.read("file.bin", 5, 10)).code == "wrong-range"


@pytest.mark.parametrize("is_cached", [False, True])
def test_shards_of_a_web_server_are_read_with_their_index(tmp_path: Path, is_cached: bool) -> None:
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            member = tarfile.TarInfo(f"s/{number}.images.png")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"%03d" % number))
    server = HttpServer(tmp_path)
    cache = DiskCache(tmp_path / "cache", 10**6) if is_cached else None
    source = open_remote(server.url, {"images": "png"}, "shards", cache=cache)
    assert [source.read("images", key) for key in source.keys("images")] == [b"000", b"001", b"002"]
    assert source.shards("images") == [1, 1, 1]
    server.kill()
    if is_cached:
        assert source.read("images", "s/1") == b"001"
