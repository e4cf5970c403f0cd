"""The app in Chromium: an example, a class, a stroke, an image; and nothing that comes from elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import needs_chromium, open_browser
from contract.experiment import write_data

from imagier.tools.app.fields import Form
from imagier.tools.app.making import Maker

from .generators import make_generator
from .serving import served

pytest.importorskip("gradio", reason="needs imagier[gradio]")
pytestmark = [pytest.mark.slow, needs_chromium]

PIXELS = """(async () => {
  const image = document.querySelector("#result img");
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [canvas.height, canvas.width, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
})()"""
ELSEWHERE = (
    "performance.getEntriesByType('resource').map(e => e.name).filter(name => !name.startsWith(location.origin))"
)

ATTEMPTS = 6
"""A page does not say when its parts are ready, so what a person does is done again if nothing follows."""


class Recorder(Maker):
    """Keeps what it is given, and what it makes of it."""

    def __init__(self, form: Form) -> None:
        super().__init__(form)
        self.made: list[tuple[Any, np.ndarray]] = []

    def make_image(self, inputs: Any, settings: Any, seed: int = 0) -> Any:
        image = super().make_image(inputs, settings, seed)
        self.made.append((inputs["seg_maps"], np.asarray(image)))
        return image

    def wait_for_more(self, count: int, seconds: float = 15) -> bool:
        """Whether it soon has made more than so many."""
        end = time.monotonic() + seconds
        while len(self.made) <= count and time.monotonic() < end:
            time.sleep(0.05)
        return len(self.made) > count


def test_a_person_clicks_on_an_example_and_paints_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path / "data")
    maker = Recorder(Form(make_generator("spade", data)))
    stored = cv2.imread(str(data / "seg_maps/a/2.png"), cv2.IMREAD_UNCHANGED)
    with served(maker, tmp_path / "app", monkeypatch) as url, open_browser(tmp_path) as browser:
        browser.resize(1280, 1200)
        browser.open(url)
        browser.wait("document.querySelectorAll('#examples .thumbnail-item').length === 6")
        browser.wait("document.querySelector('#input-seg_maps canvas')")
        for _ in range(ATTEMPTS):
            browser.click("#examples .gallery-item:nth-of-type(2) button")
            if maker.wait_for_more(0):
                break
        browser.wait("document.querySelector('#result img')")
        first = browser.evaluate("document.querySelector('#result img').src")
        browser.click("#classes-seg_maps label:nth-of-type(3)")
        browser.wait("document.querySelector('#input-seg_maps button[style*=\"rgb(0, 128, 0)\"]')")  # its brush
        for _ in range(ATTEMPTS):
            browser.drag("#input-seg_maps canvas", (0.3, 0.5), (0.4, 0.5), (0.5, 0.5), (0.7, 0.5))
            count = len(maker.made)
            browser.click("#make")
            if maker.wait_for_more(count) and not np.array_equal(maker.made[-1][0], stored):
                break
        browser.wait(f"document.querySelector('#result img')?.src !== {json.dumps(first)}")
        height, width, values = browser.evaluate(PIXELS)
        assert browser.evaluate(ELSEWHERE) == [] and browser.problems == []
    (example, _), (painted, image) = maker.made[0], maker.made[-1]
    assert np.array_equal(example, stored)
    assert np.array_equal(np.array(values, np.uint8).reshape(height, width, 4)[..., :3], image)
    rows, columns = np.nonzero(painted != stored)
    assert rows.size > 10 and (painted[rows, columns] == 2).all()
    assert rows.min() >= 13 and rows.max() <= 18 and columns.min() >= 4 and columns.max() <= 28  # of 32, where it was
