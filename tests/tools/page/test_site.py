"""`imagier demo`: what it writes, serves and refuses."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import write

from imagier.cli import main
from imagier.tools.page.server import open_server
from imagier.tools.page.site import RUNTIME, STATIC

from .bundles import IMAGE, LINES, STYLE, label_input, make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "bundle", label_input(LINES), has_network=False)
    return tmp_path / "bundle"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    """The port of a server of `site`, which holds what a page holds, and lies beside a secret."""
    (tmp_path / "site/runtime").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("index.html", "app.js", "runtime/a.wasm", "runtime/a.mjs", "generator.onnx", "bundle.json", "s.css"):
        (tmp_path / "site" / name).write_text(name)
    with open_server(tmp_path / "site", "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def change(bundle: Path, **values: object) -> None:
    path = bundle / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line in which a command says what is wrong."""
    assert main(["demo", *map(str, argv)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_the_folder_is_whole_and_replaces_only_a_page(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "a/site"
    assert main(["demo", str(bundle), "--out", str(out), "--no-serve"]) == 0
    (out / "CNAME").write_text("mine")
    (out / "samples/9.output.png").touch()  # of another bundle
    assert main(["demo", str(bundle), "--out", str(out), "--no-serve"]) == 0
    assert (out / "CNAME").read_text() == "mine"
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - {"CNAME"}
    runtime = {
        "ort.wasm.bundle.min.mjs",
        "ort-wasm-simd-threaded.wasm",
        "LICENSE",
        "ThirdPartyNotices.txt",
        "SOURCE.txt",
    }
    samples = {f"samples/{i}.{kind}.png" for i in (0, 1) for kind in ("edge_maps.input", "output")}
    static = {path.name for path in STATIC.iterdir()}
    assert found == static | {f"runtime/{name}" for name in runtime} | samples | {"bundle.json", "generator.onnx"}
    assert (out / "generator.onnx").read_bytes() == (bundle / "generator.onnx").read_bytes()
    assert names_in(out.parent) == {"site"}


def test_the_runtime_is_the_one_whose_hash_is_noted(bundle: Path, tmp_path: Path) -> None:
    assert main(["demo", str(bundle), "--out", str(tmp_path / "site"), "--no-serve"]) == 0
    noted = dict(re.findall(r"(\S+): sha256 (\w{64})", (RUNTIME / "SOURCE.txt").read_text()))
    names = [name for name in names_in(tmp_path / "site/runtime") if name.endswith(("wasm", "mjs"))]
    hashes = {name: hashlib.sha256((tmp_path / "site/runtime" / name).read_bytes()).hexdigest() for name in names}
    assert hashes == noted and len(noted) == 2
    assert sum(path.stat().st_size for path in RUNTIME.iterdir()) < 4e6


def test_files_of_others_are_not_replaced(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").touch()
    assert "--out: holds other files" in refused(capsys, bundle, "--out", tmp_path / "full", "--no-serve")
    assert names_in(tmp_path / "full") == {"thesis.txt"}
    assert "--out: is needed" in refused(capsys, bundle, "--no-serve")


def test_a_bundle_cannot_replace_the_programs_of_the_page(bundle: Path, tmp_path: Path) -> None:
    for name in ("app.js", "runtime/ort.wasm.bundle.min.mjs"):
        write(bundle / name, b"alert(1)")
    change(bundle, samples=[{"input": "app.js", "output": "runtime/ort.wasm.bundle.min.mjs"}])
    assert main(["demo", str(bundle), "--out", str(tmp_path / "site"), "--no-serve"]) == 0
    assert (tmp_path / "site/app.js").read_bytes() == (STATIC / "app.js").read_bytes()
    assert (tmp_path / "site/runtime/ort.wasm.bundle.min.mjs").stat().st_size > 20_000


def test_a_link_to_a_folder_stays_one(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "disk/site").mkdir(parents=True)
    (tmp_path / "site").symlink_to(tmp_path / "disk/site")
    assert main(["demo", str(bundle), "--out", str(tmp_path / "site"), "--no-serve"]) == 0
    assert (tmp_path / "site").is_symlink() and (tmp_path / "disk/site/index.html").is_file()


def test_what_is_no_bundle_is_refused_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "site", "--no-serve"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").touch()
    assert "imagier export" in refused(capsys, tmp_path / "run", *out)
    assert f"did you mean {tmp_path / 'run'}?" in refused(capsys, tmp_path / "runn", *out)
    (tmp_path / "run/bundle.json").write_text("{")
    assert "cannot be read" in refused(capsys, tmp_path / "run", *out)
    (tmp_path / "run/bundle.json").write_text('{"imagier_bundle": 1}')
    assert "lacks" in refused(capsys, tmp_path / "run", *out)
    (tmp_path / "run/bundle.json").write_text('{"imagier_bundle": 2}')
    assert "version 1" in refused(capsys, tmp_path / "run", *out)
    assert not (tmp_path / "site").exists()


def test_a_bundle_that_lacks_a_file_or_names_one_outside_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", tmp_path / "site", "--no-serve"]
    (bundle / "samples/1.output.png").rename(tmp_path / "secret.png")
    assert "samples/1.output.png is missing" in refused(capsys, bundle, *out)
    files = json.loads((bundle / "bundle.json").read_text())["files"]
    change(bundle, files={"safetensors": {"path": "generator.safetensors"}})
    assert "has no ONNX file" in refused(capsys, bundle, *out)
    change(bundle, files=files)
    change(bundle, samples=[{"input": "../secret.png", "style": None, "output": "../secret.png"}])
    assert "outside the bundle" in refused(capsys, bundle, *out)
    (bundle / "samples/deep").mkdir()
    (bundle / "samples/a").symlink_to("deep", target_is_directory=True)
    change(bundle, samples=[{"input": None, "output": "samples/a/../../bundle.json"}])
    assert "outside the bundle" in refused(capsys, bundle, *out)
    change(bundle, samples=["samples/1.output.png"])
    assert "lacks a part" in refused(capsys, bundle, *out)
    assert not (tmp_path / "site").exists()


def test_inputs_that_the_page_cannot_offer_are_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", tmp_path / "site", "--no-serve"]
    change(bundle, samples=[], inputs=[IMAGE, {**IMAGE, "role": "depth"}])
    assert "cannot offer input images (depth)" in refused(capsys, bundle, *out)
    change(bundle, inputs=[label_input({**LINES, "channels": 7})])
    assert "edge_maps (image, 7 channels)" in refused(capsys, bundle, *out)
    change(bundle, inputs=[label_input({**LINES, "divisor": 1})])
    assert "edge_maps (image, 1 channel, 16 bits)" in refused(capsys, bundle, *out)
    change(bundle, inputs=[{**IMAGE, "shape": ["batch", 4, "height", "width"]}])
    assert "input images (image, 4 channels)" in refused(capsys, bundle, *out)
    change(bundle, inputs=[IMAGE, {**STYLE, "shape": ["batch", 1, "height", "width"]}])
    assert "input style_images (style_image, 1 channel)" in refused(capsys, bundle, *out)
    change(bundle, inputs=[IMAGE, IMAGE])
    assert "exactly one" in refused(capsys, bundle, *out)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("app.js", "text/javascript"),
        ("runtime/a.mjs", "text/javascript"),
        ("runtime/a.wasm", "application/wasm"),
        ("bundle.json", "application/json"),
        ("s.css", "text/css"),
        ("generator.onnx", "application/octet-stream"),
    ],
)
def test_files_have_the_types_that_browsers_ask_for(served: int, name: str, kind: str) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{served}/{name}") as answer:
        assert answer.headers["Content-Type"] == kind
        assert answer.read() == (name or "index.html").encode()


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/runtime/", "//../secret.txt", "/..%2fsecret.txt"]
)
def test_nothing_outside_and_no_list_is_served(served: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served)
    connection.request("GET", path)  # as it is, which urllib would not send
    answer = connection.getresponse()
    assert answer.status == 404 and b"secret" not in answer.read().replace(path.encode(), b"")
    connection.close()


def test_a_port_that_is_taken_is_a_mistake(served: int, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--port: cannot listen at 127.0.0.1:{served}" in refused(capsys, bundle, "--port", served)
    assert "is no port" in refused(capsys, bundle, "--port", 70000)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "."])
def test_a_host_that_is_none_of_this_machine_is_a_mistake(
    host: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"--host: cannot listen at {host}:0" in refused(capsys, bundle, "--host", host, "--port", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(number: signal.Signals, bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "imagier", "demo", str(bundle), "--port", "0"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        url = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", process.stdout.readline())
        assert url is not None
        with urllib.request.urlopen(url[1]) as answer:
            assert b"<title>Imagier" in answer.read()
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr.read() == "" and process.stdout.read() == "\n"
    assert names_in(tmp_path) == {"bundle"}  # nothing is left behind
