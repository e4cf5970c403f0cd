"""Bundles that `imagier export` writes, on the page: each example becomes the image that torch made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import Browser, needs_chromium
from contract.experiment import config_of, write_data

from imagier.run import RunOptions, train

from . import visit

run = pytest.importorskip("imagier.run.bundle", reason="needs `imagier export`")
pytest.importorskip("onnxscript", reason="needs imagier[export]")
pytestmark = [pytest.mark.slow, needs_chromium]

METHODS = ["spade", "munit", "unit", "funit", "coco_funit"]
"""With a style code, a style image, or neither."""


@pytest.mark.parametrize("method", METHODS)
def test_an_exported_generator_paints_on_the_page_as_in_torch(method: str, browser: Browser, tmp_path: Path) -> None:
    from imagier.run.bundle.export import export

    data = write_data(tmp_path / "data")
    val = f"data.val={{roots: ['{data}'], batch_size: 2, augmentations: {{resize_h_w: '32, 32'}}}}"
    train(config_of(method, data, val, "max_iter=1"), RunOptions(logdir=tmp_path / "run", device="cpu"))
    export(tmp_path / "run", tmp_path / "bundle", formats=["onnx"])
    samples = json.loads((tmp_path / "bundle/bundle.json").read_text())["samples"]
    with visit.opened(browser, tmp_path / "bundle"):
        for index, sample in enumerate(samples[:3], 1):
            browser.click(f"#example-list button:nth-child({index})")
            visit.assert_shows(browser, visit.read(tmp_path / "bundle" / sample["output"]))
