"""The alpha of an input, for the image that is made of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from imagier.data.augmentation.warp import Size
from imagier.data.decoding.decode import EncodedFile, read_pixels


def read_alpha(paths: Iterable[Path], size: Size, dtype: type[np.uint8] | type[np.uint16]) -> np.ndarray | None:
    """The alpha of the first file that has one, upright, resized: height x width x 1. None if none has.

    UserError if a file is damaged.
    """
    for path in paths:
        file = EncodedFile(path.read_bytes(), path.suffix.removeprefix(".").lower(), str(path))
        if file.header is None or file.header.is_jpeg:
            continue
        pixels = read_pixels(file)
        if pixels.shape[2] in (2, 4):
            return _fit(pixels[..., -1], size, dtype)
    return None


def _fit(alpha: np.ndarray, size: Size, dtype: type[np.uint8] | type[np.uint16]) -> np.ndarray:
    most = 1.0 if alpha.dtype == np.float32 else float(np.iinfo(alpha.dtype).max)
    if alpha.shape != size:
        shrinks = size[0] < alpha.shape[0] or size[1] < alpha.shape[1]
        alpha = cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if alpha.dtype != dtype:
        alpha = (alpha.astype(np.float32) * (np.iinfo(dtype).max / most)).round().clip(0, np.iinfo(dtype).max)
    return alpha.astype(dtype)[..., None]
