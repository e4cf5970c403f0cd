"""A visit to the page of a bundle, in Chromium."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from browser import Browser

from imagier.tools.page.bundle import read_bundle
from imagier.tools.page.server import open_server
from imagier.tools.page.site import write_site

TOLERANCE = 2
"""Of 255: what the page and torch may differ by."""


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """The address of the page of a bundle."""
    site = bundle.with_name("site")
    write_site(read_bundle(bundle), site)
    server = open_server(site, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def opened(browser: Browser, bundle: Path) -> Iterator[None]:
    """The page of a bundle, with the image of its first example; nothing on it may have failed."""
    browser.resize(1280, 900)
    browser.problems.clear()
    with served(bundle) as url:
        browser.open(url)
        error = "document.getElementById('error')"
        browser.wait(f"/^in /.test(document.getElementById('status').textContent) || !{error}.hidden")
        assert browser.evaluate(f"{error}.textContent") == ""
        yield
    assert browser.problems == []
    assert browser.evaluate(f"{error}.textContent") == ""


def shown(browser: Browser) -> np.ndarray:
    """The pixels of the result, H x W x 3."""
    height, width, values = browser.evaluate(
        "(() => { const c = document.getElementById('result');"
        " const {data} = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        " return [c.height, c.width, [...data]]; })()"
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def assert_shows(browser: Browser, image: np.ndarray) -> None:
    """That the page soon shows this image, H x W x 3."""
    end = time.monotonic() + 15
    while difference(shown(browser), image) > TOLERANCE:
        assert time.monotonic() < end, f"differs by {difference(shown(browser), image)}"
        time.sleep(0.05)


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest one, 256 for images of different shapes."""
    return int(np.abs(one.astype(int) - other.astype(int)).max()) if one.shape == other.shape else 256


def read(path: Path) -> np.ndarray:
    """A file as it is stored, in the order red, green, blue, without alpha."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return image[..., 2::-1].copy() if image.ndim == 3 else image
