"""What the pages of `imagier data` are made of: their templates, and stored arrays as images for people."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import jinja2
import numpy as np

from imagier.data.decoding.sample import InputType
from imagier.nn.colorize import palette
from imagier.tools.doctor.file_stats import NOTHING

NOTHING_COLOR, BEYOND_COLOR = (48, 48, 52), (255, 0, 255)
"""Of the value that stands for no class, and of classes that the config does not know."""

POINT_COLOR = (0, 200, 60)

_PNG_UP_TO_PX = 128

_LARGE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Shown:
    """An image in a page."""

    uri: str
    name: str
    width: int
    height: int
    """The size at which it is shown, in CSS px."""
    pixels: bool
    """Its pixels are to be seen as squares."""


def template(name: str) -> jinja2.Template:
    """A template of the pages of `imagier data`."""
    pages = jinja2.PackageLoader("imagier.tools.doctor", "pages")
    return jinja2.Environment(autoescape=True, loader=pages, trim_blocks=True, lstrip_blocks=True).get_template(name)


def shown(array: np.ndarray, kind: InputType, name: str, side_px: int) -> Shown:
    """An image H x W x C as stored, at most `side_px` high and wide; a small one is enlarged 2, 3, ... times."""
    return _shown(for_people(array, kind), name, side_px, names=kind.is_mask)


def with_points(array: np.ndarray, kind: InputType, points: np.ndarray, name: str, side_px: int) -> Shown:
    """The same, with key points P x D marked in it; those outside are not to be seen."""
    canvas = for_people(array, kind).copy()
    radius = max(1, round(max(canvas.shape[:2]) / 80))
    for x, y in points[:, :2].clip(-1e6, 1e6).round().astype(int).tolist():
        cv2.circle(canvas, (x, y), radius, POINT_COLOR, cv2.FILLED)
    return _shown(canvas, name, side_px, names=False)


def for_people(array: np.ndarray, kind: InputType) -> np.ndarray:
    """An image H x W x C as stored -> H x W x 3, uint8: names in colors, numbers from black to white."""
    if array.shape[2] == 1 and kind.num_classes is not None:
        return class_colors(kind.num_classes)[array[..., 0].astype(np.int64).clip(0, 65535)]
    if array.shape[2] == 1 and kind.is_mask and array.dtype != np.float32 and len(np.unique(array)) > 2:
        return palette(256).numpy()[array[..., 0].astype(np.int64) % 256]
    if array.dtype != np.uint8 or (kind.is_mask and array.max() < 2):
        array = _stretched(array)
    if array.shape[2] in (3, 4):
        return np.ascontiguousarray(array[..., :3])
    return np.repeat(array[..., :1], 3, axis=2)


def class_colors(num_classes: int) -> np.ndarray:
    """65536 x 3, uint8: the color of every value in a map of classes."""
    colors = np.full((65536, 3), BEYOND_COLOR, np.uint8)
    colors[NOTHING] = NOTHING_COLOR
    colors[:num_classes] = palette(num_classes).numpy()
    return colors


def css(color: np.ndarray) -> str:
    """A color for a style sheet."""
    return f"rgb({', '.join(map(str, color.tolist()))})"


def _shown(image: np.ndarray, name: str, side_px: int, *, names: bool) -> Shown:
    height, width = image.shape[:2]
    factor = side_px / max(height, width)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if names else cv2.INTER_AREA)
    times = max(1, int(factor))
    # JPEG would smear the colors of names, and saves little where there are few pixels.
    png = names or max(height, width) <= _PNG_UP_TO_PX
    data = cv2.imencode(".png" if png else ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    uri = f"data:image/{'png' if png else 'jpeg'};base64,{base64.b64encode(data).decode()}"
    return Shown(uri, name, image.shape[1] * times, image.shape[0] * times, names or times > 1)


def _stretched(array: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(array.astype(np.float64), posinf=_LARGE, neginf=-_LARGE)
    low, high = values.min(), values.max()
    return ((values - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8)
