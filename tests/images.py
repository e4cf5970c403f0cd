"""Images for tests, and a store that holds them in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from imagier.errors import UserError


def noise(height: int, width: int, channels: int = 3, *, seed: int = 0, below: int = 256) -> np.ndarray:
    """An image H x W x C of random numbers in [0, below); uint16 if they need it."""
    dtype = np.uint8 if below <= 256 else np.uint16
    return np.random.default_rng(seed).integers(0, below, (height, width, channels), dtype)


def smooth(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    """An image H x W x C, uint8, without sharp edges."""
    low = noise(3, 3, channels, seed=seed)
    return cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def encoded(image: np.ndarray, kind: str, **options: object) -> bytes:
    """The file of an 8-bit image H x W x C, channels in the order red, green, blue, alpha; written by Pillow."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, kind, **options)
    return file.getvalue()


def png(image: np.ndarray) -> bytes:
    """A PNG of any bit depth, H x W x C with 1 or 3 channels; written by OpenCV."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def write(path: Path, data: bytes = b"") -> Path:
    """Writes a file, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@dataclass(frozen=True)
class Memory:
    """A source that holds its files in memory: `files` by (input type, key)."""

    files: dict[tuple[str, str], bytes]
    name: str = "memory"

    def keys(self, input_type: str) -> list[str]:
        return [key for its_type, key in self.files if its_type == input_type]

    def shards(self, input_type: str) -> list[int]:
        return [len(self.keys(input_type))]

    def read(self, input_type: str, key: str) -> bytes:
        if (input_type, key) not in self.files:
            raise UserError("No such file or directory", where=self.where(input_type, key), code="missing-file")
        return self.files[input_type, key]

    def open(self, input_type: str, key: str) -> BinaryIO:
        return io.BytesIO(self.read(input_type, key))

    def mtime_ns(self, input_type: str, key: str) -> int:
        return 0

    def where(self, input_type: str, key: str) -> str:
        return f"{self.name}/{input_type}/{key}.png"

    def extension(self, input_type: str) -> str:
        return "png"

    def read_beside(self, name: str) -> bytes | None:
        return None
