"""One sample that a caller has in memory, as a source that data sets read."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from imagier.data.codec import Codec
from imagier.data.sources.source import one_line
from imagier.errors import UserError

Input = str | Path | bytes | np.ndarray | Tensor | Image.Image
"""A file, its bytes, an array H x W or H x W x C, a tensor C x H x W, or a PIL image."""

KEY = "input/0"
"""The only key of every type: sequence and name."""

_CHANNELS_OF_PNG = (1, 3, 4)


class MemorySource:
    """The files of one sample. What is no file already becomes a PNG, so that it is decoded and checked as others."""

    def __init__(self, codecs: Sequence[Codec], inputs: Mapping[str, Input]) -> None:
        """inputs: by the names of the codecs. UserError if one cannot be read, or is no image."""
        self._files = {codec.name: _read(codec, inputs[codec.name]) for codec in codecs}
        self._paths = {name: str(value) for name, value in inputs.items() if isinstance(value, str | Path)}

    def keys(self, input_type: str) -> list[str]:
        return [KEY]

    def shards(self, input_type: str) -> list[int]:
        return [1]

    def read(self, input_type: str, key: str) -> bytes:
        return self._files[input_type][1]

    def open(self, input_type: str, key: str) -> BinaryIO:
        return io.BytesIO(self._files[input_type][1])

    def mtime_ns(self, input_type: str, key: str) -> int:
        return 0

    def where(self, input_type: str, key: str) -> str:
        return one_line(self._paths.get(input_type, input_type))

    def read_beside(self, name: str) -> bytes | None:
        return None

    def extension(self, input_type: str) -> str:
        return self._files[input_type][0]


def _read(codec: Codec, value: Input) -> tuple[str, bytes]:
    """The extension and the bytes of an input."""
    if isinstance(value, bytes):
        return codec.input_type.ext, value
    if isinstance(value, str | Path):
        try:
            return Path(value).suffix.removeprefix(".").lower() or codec.input_type.ext, Path(value).read_bytes()
        except OSError as error:
            raise UserError(str(error.strerror), where=value, code="unreadable-input") from error
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
        value = value.transpose(1, 2, 0) if value.ndim == 3 else value
    elif isinstance(value, Image.Image):
        value = np.asarray(value.convert("L") if value.mode == "1" else value)
    return "png", _encode(_to_whole_numbers(value, codec), codec)


def _to_whole_numbers(array: np.ndarray, codec: Codec) -> np.ndarray:
    """uint8 or uint16: an array of whole numbers as it is; one of floats from 0 to 1 with 8 bits."""
    if array.size == 0:
        raise UserError("is empty", where=codec.name, code="wrong-input")
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating):
        if codec.holds_ids or not (low >= 0 and high <= 1):
            expected = "whole numbers" if codec.holds_ids else "whole numbers, or floats from 0 to 1"
            what = f"holds floats from {low:g} to {high:g}"
            raise UserError(what, where=codec.name, advice=f"expected {expected}", code="wrong-input")
        return (array * 255).round().astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer) or low < 0 or high > 65535:
        what = f"holds {array.dtype} values from {low} to {high}"
        raise UserError(what, where=codec.name, advice="expected whole numbers from 0 to 65535", code="wrong-input")
    return array.astype(np.uint8 if array.dtype == np.uint8 or high <= 255 else np.uint16)


def _encode(array: np.ndarray, codec: Codec) -> bytes:
    """H x W or H x W x C, uint8 or uint16 -> PNG."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _CHANNELS_OF_PNG:
        shape = " x ".join(map(str, array.shape))
        advice = "expected height x width, or that x 1, 3 or 4 channels (a tensor: channels first)"
        raise UserError(f"is {shape}", where=codec.name, advice=advice, code="wrong-input")
    order = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[array.shape[2]]
    array = np.ascontiguousarray(array)
    return cv2.imencode(".png", array if order is None else cv2.cvtColor(array, order))[1].tobytes()
