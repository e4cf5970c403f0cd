"""The app over HTTP, as a browser or another program calls it; and the command that serves it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from contract.experiment import SIZE, write_data
from PIL import Image

from imagier.cli import main
from imagier.run import RunOptions, train
from imagier.tools.app.fields import Form
from imagier.tools.app.making import Maker
from imagier.tools.app.painting import Board, ClassColors

from .generators import make_generator
from .serving import served

pytest.importorskip("gradio", reason="needs imagier[gradio]")
gradio_client = pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def painted(ids: np.ndarray, path: Path) -> dict[str, object]:
    """What a browser sends of a map that was opened."""
    shown = Board((SIZE, SIZE)).enlarge(ClassColors(4).to_colors(ids))
    Image.fromarray(shown).save(path)
    file = gradio_client.handle_file(str(path))
    return {"background": file, "layers": [], "composite": file}


def test_an_image_comes_over_http_and_mistakes_are_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Maker(Form(make_generator("spade", data)))
    ids = cv2.imread(str(data / "seg_maps/b/3.png"), cv2.IMREAD_UNCHANGED)
    with served(maker, tmp_path, monkeypatch) as url:
        client = gradio_client.Client(url, verbose=False, download_files=str(tmp_path / "got"))
        result = client.predict(5, painted(ids, tmp_path / "painted.png"), None, api_name="/make")
        assert np.array_equal(np.asarray(Image.open(result)), np.asarray(maker.make_image({"seg_maps": ids}, {}, 5)))
        with pytest.raises(gradio_client.exceptions.AppError) as error:
            client.predict(5, {"background": None, "layers": [], "composite": None}, None, api_name="/make")
        assert str(error.value).startswith("seg_maps: missing input")
        with urllib.request.urlopen(url) as page:
            policy, text = page.headers["content-security-policy"], page.read().decode()
    assert "default-src 'self'" in policy and "<script" in text
    assert re.findall(r"<(?:script|link)[^>]*(?:src|href)=\W?(?:https?:)?//[^>]*>", text) == []


def test_a_clip_comes_over_http(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker(Form(make_generator("fs_vid2vid", data)))
    labels, images = (sorted((data / name / "a").iterdir()) for name in ("seg_maps", "images"))
    expected = tmp_path / "expected.mp4"
    maker.make_clip(
        {"seg_maps": labels}, {"seg_maps": labels[:1], "images": images[:1]}, {}, expected, lambda *done: None
    )
    files = [[gradio_client.handle_file(str(path)) for path in paths] for paths in (labels, labels[:1], images[:1])]
    with served(maker, tmp_path / "app", monkeypatch) as url:
        client = gradio_client.Client(url, verbose=False, download_files=str(tmp_path / "got"))
        references = dict(zip(("seg_maps", "images"), files[1:]))
        names = maker.form.find_needs({}).references
        result = client.predict(False, 100, files[0], *(references[name] for name in names), api_name="/make")
    path = result["video"] if isinstance(result, dict) else result
    assert Path(path).read_bytes() == expected.read_bytes()


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(tiny.config(tiny.write_data(folder / "data", train=2, val=2), max_iter=1), RunOptions(logdir=folder / "run"))
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly_and_nothing_is_left(number: int, logdir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "imagier", "demo", str(logdir), "--gradio", "--port", "0", "--device", "cpu"]
    (tmp_path / "here").mkdir()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path / "here",
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        url = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", process.stdout.readline())
        assert url is not None, process.stderr.read()
        with urllib.request.urlopen(url[1]) as answer:
            assert answer.status == 200
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr.read() == "" and process.stdout.read() == "\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_flags_of_the_page_are_refused(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, where in ((["--out", str(logdir / "out")], "--out"), (["--no-serve"], "--no-serve")):
        assert main(["demo", str(logdir), "--gradio", *flags]) == 2
        assert capsys.readouterr().err.startswith(f"{where}: has no effect with --gradio")


def test_what_python_cannot_open_is_refused_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "openmoji", "--gradio"]) == 2
    captured = capsys.readouterr()
    assert "safetensors" in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_without_gradio_the_command_says_how_to_get_it(
    logdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagier.tools.app.server.find_spec", lambda name: None)
    assert main(["demo", str(logdir), "--gradio"]) == 2
    assert "pip install 'imagier[gradio]'" in capsys.readouterr().err
