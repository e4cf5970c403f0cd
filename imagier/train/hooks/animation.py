"""Short looping animations of the clips of a training: GIFs, which browsers, TensorBoard and W&B all show."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

FRAMES_PER_S = 8
MOST_BYTES = 1_000_000
"""A larger animation is made smaller on the screen."""

_SHRINK = 0.8
_COLORS = 256


def encode_gif(frames: Sequence[np.ndarray], comment: str = "", most_bytes: int = MOST_BYTES) -> bytes:
    """Frames H x W x 3, uint8, of one size -> the bytes of a GIF that loops, of at most so many bytes.

    All frames have the same colors, without dithering: else the animation would flicker where the clip does not.
    """
    images = [Image.fromarray(frame) for frame in frames]
    encoded = _encode(images, comment)
    while len(encoded) > most_bytes and min(images[0].size) > 1:
        width, height = (max(1, round(side * _SHRINK)) for side in images[0].size)
        images = [image.resize((width, height), Image.Resampling.BOX) for image in images]
        encoded = _encode(images, comment)
    return encoded


def read_gif_comment(data: bytes) -> str:
    """The comment of a GIF; empty if there is none."""
    with Image.open(io.BytesIO(data)) as image:
        comment = image.info.get("comment", b"")
    return comment.decode("ascii", "replace")


def _encode(images: Sequence[Image.Image], comment: str) -> bytes:
    width, height = images[0].size
    strip = Image.fromarray(np.concatenate([np.asarray(image) for image in images]))
    strip = strip.quantize(_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    first, *others = (strip.crop((0, at, width, at + height)) for at in range(0, strip.height, height))
    buffer = io.BytesIO()
    duration_ms = 1000 // FRAMES_PER_S
    first.save(
        buffer, "GIF", save_all=True, append_images=others, duration=duration_ms, loop=0, comment=comment.encode()
    )
    return buffer.getvalue()
