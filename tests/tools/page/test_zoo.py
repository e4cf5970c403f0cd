"""The bundles that come with Imagier: their network makes their samples, and the page shows them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser, needs_chromium

from imagier.cli import main
from imagier.tools.page.bundle import CREDITS, ZOO, list_zoo, read_bundle

from . import visit

each_bundle = pytest.mark.parametrize("name", list_zoo())


def test_there_is_one() -> None:
    assert "openmoji" in list_zoo()


@each_bundle
def test_it_is_small_and_says_its_licenses(name: str) -> None:
    bundle = read_bundle(Path(name))
    assert sum(path.stat().st_size for path in bundle.folder.rglob("*")) < 4e6
    assert bundle.facts["license"]["weights"] and bundle.facts["license"]["data"]
    assert (bundle.folder / CREDITS).read_text()


@each_bundle
def test_its_network_makes_its_samples(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs imagier[export]")
    facts = read_bundle(Path(name)).facts
    network = onnxruntime.InferenceSession(ZOO / name / facts["files"]["onnx"]["path"])
    (part,) = facts["inputs"][0]["parts"]
    assert (part["kind"], part["channels"]) == ("image", 1)
    low, high = part["range"]
    for sample in facts["samples"]:
        drawing = cv2.imread(str(ZOO / name / sample["input"]), cv2.IMREAD_GRAYSCALE) / np.float32(255)
        (made,) = network.run(None, {"label": (drawing * (high - low) + low)[None, None].astype(np.float32)})
        image = np.rint((made[0].transpose(1, 2, 0) + 1) / 2 * 255).clip(0, 255).astype(np.uint8)
        assert visit.difference(image, visit.read(ZOO / name / sample["output"])) <= visit.TOLERANCE


@pytest.mark.slow
@needs_chromium
@each_bundle
def test_the_page_makes_its_samples(name: str, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bundle").symlink_to(ZOO / name)
    samples = json.loads((ZOO / name / "bundle.json").read_text())["samples"]
    with visit.opened(browser, tmp_path / "bundle"):
        for index, sample in enumerate(samples, 1):
            browser.click(f"#example-list button:nth-child({index})")
            visit.assert_shows(browser, visit.read(ZOO / name / sample["output"]))


def test_its_page_is_written_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "openmoji", "--out", "site", "--no-serve"]) == 0
    assert (tmp_path / "site/index.html").is_file() and (tmp_path / "site" / "generator.onnx").is_file()


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    Path("openmoji").mkdir()
    assert main(["demo", "openmoji", "--out", "site", "--no-serve"]) == 2
    assert "no bundle" in capfd.readouterr().err


def test_the_zoo_is_named_where_there_is_no_bundle(capfd) -> None:
    assert main(["demo", "nothing_like_it", "--out", "site", "--no-serve"]) == 2
    assert "openmoji" in capfd.readouterr().err
