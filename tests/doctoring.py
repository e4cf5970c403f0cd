"""Small data sets in memory, and what the doctor says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from images import Memory, png, smooth
from small_data import codec_for

from imagier.tools.doctor.diagnosis import Diagnosis, diagnose
from imagier.tools.doctor.file_table import Split
from imagier.tools.doctor.finding import Finding

IMAGES = codec_for(name="images", ext="png", num_channels=3)
MAPS = codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=4)
FITS: dict[str, Any] = {"resize_h_w": "32, 32"}


def areas(size: int = 48, *, seed: int = 0, classes: int = 4, below: int | None = None) -> np.ndarray:
    """A clean map size x size x 1, uint8, of `classes` areas or more with values in [0, below), each wide."""
    rng = np.random.default_rng(seed)
    points = rng.random((2 * classes, 2)) * size
    values = rng.integers(0, below or classes, 2 * classes)
    values[:classes] = np.arange(classes) if below is None else values[:classes]
    y, x = np.mgrid[:size, :size]
    nearest = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(axis=2)
    return values[nearest].astype(np.uint8)[..., None]


def files(count: int = 6, *, seed: int = 0) -> dict[tuple[str, str], bytes]:
    """Good pairs of images and maps of classes 0 to 3."""
    found = {}
    for i in range(count):
        found["images", f"s/{i:02d}"] = png(smooth(32, 40, seed=seed + i))
        found["maps", f"s/{i:02d}"] = png(areas(32, seed=seed + i)[:, np.arange(40) % 32])
    return found


def make_split(content: Mapping[tuple[str, str], bytes], name: str = "train", **options: Any) -> Split:
    """A part with files in memory."""
    defaults: dict[str, Any] = {
        "sources": [Memory(dict(content), name)],
        "codecs": [IMAGES, MAPS],
        "augmentations": FITS,
        "batch_size": 2,
        "labels": frozenset({"maps"}),
    }
    return Split(name=name, **{**defaults, **options})


def examine(*parts: Split, workers: int = 0, **options: Any) -> Diagnosis:
    """What the doctor finds, without a bar."""
    return diagnose(parts, workers=workers, progress=no_progress, **options)


@contextmanager
def no_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows nothing."""
    yield lambda done, total: None


def found(diagnosis: Diagnosis, words: str) -> Finding:
    """The one finding that has these words in it."""
    (finding,) = [finding for finding in diagnosis.findings if words in finding.what]
    return finding


def texts(finding: Finding) -> list[str]:
    """All its rows."""
    return [row.text for row in finding.rows]


def grown(image: np.ndarray, factor: float, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    """An image resized."""
    height, width, channels = image.shape
    size = round(width * factor), round(height * factor)
    return cv2.resize(image, size, interpolation=interpolation).reshape(size[1], size[0], channels)


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """What JPEG makes of an image."""
    mode = cv2.IMREAD_COLOR if image.shape[2] == 3 else cv2.IMREAD_GRAYSCALE
    decoded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], mode)
    return decoded.reshape(*image.shape)
