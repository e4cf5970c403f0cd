"""Building blocks of the pages of `imagier data`: templates, and arrays as images."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from imagier.data.codec import Codec

if TYPE_CHECKING:
    import jinja2

_PNG_UP_TO_PX = 128


@dataclass(frozen=True)
class PageImage:
    """An image on a page."""

    uri: str
    name: str
    width: int
    height: int
    """Displayed size, in CSS px."""
    is_pixelated: bool
    """Whether to enlarge it without smoothing."""


def load_template(name: str) -> jinja2.Template:
    """Loads a template of the pages."""
    import jinja2  # not needed without a page

    pages = jinja2.PackageLoader("imagier.tools.doctor", "pages")
    return jinja2.Environment(autoescape=True, loader=pages, trim_blocks=True, lstrip_blocks=True).get_template(name)


def show(array: np.ndarray, codec: Codec, name: str, side_px: int, canvas: np.ndarray | None = None) -> PageImage:
    """Renders a stored or augmented array, at most `side_px` high and wide. Small ones are enlarged 2, 3, ... times.

    canvas: as in `Codec.to_rgb`.
    """
    image, holds_ids = codec.to_rgb(array, canvas), codec.holds_ids
    height, width = image.shape[:2]
    factor = side_px / max(height, width)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if holds_ids else cv2.INTER_AREA)
    times = max(1, int(factor))
    # JPEG would change the colors of ids, and saves little for small images.
    png = holds_ids or max(height, width) <= _PNG_UP_TO_PX
    data = cv2.imencode(".png" if png else ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    uri = f"data:image/{'png' if png else 'jpeg'};base64,{base64.b64encode(data).decode()}"
    return PageImage(uri, name, image.shape[1] * times, image.shape[0] * times, holds_ids or times > 1)


def to_css(color: np.ndarray) -> str:
    """RGB color -> its CSS notation."""
    return f"rgb({', '.join(map(str, color.tolist()))})"
