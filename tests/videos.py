"""Video files for tests, in memory: each frame shows its own number, so that it can be told which one it is."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import av
import numpy as np

BITS, SIDE_PX = 8, 8


def numbered(number: int) -> np.ndarray:
    """An image 16 x 64 x 3, uint8, with a white bar for each bit of a number that is 1."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8) * 255
    return np.tile(bits.repeat(SIDE_PX)[None, :, None], (2 * SIDE_PX, 1, 3))


def number_of(image: np.ndarray) -> int:
    """The number that an image shows."""
    bars = image[..., 0].mean(axis=0).reshape(BITS, SIDE_PX).mean(axis=1)
    return sum(1 << bit for bit, bar in enumerate(bars) if bar > 127)


def video(
    images: Iterable[np.ndarray],
    *,
    form: str = "matroska",
    codec: str = "ffv1",
    pixels: str = "bgr0",
    gop: int = 10,
    times: Sequence[int] | None = None,
    muxing: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """The file of images H x W x 3 (1: gray). times: when each is shown, in 1/25 s. ffv1 keeps every value."""
    file = io.BytesIO()
    with av.open(file, "w", format=form, options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        for number, image in enumerate(images):
            height, width, channels = image.shape
            if number == 0:
                stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, pixels, gop
            gray = {1: "gray", 2: "gray16le"}[image.itemsize]
            array = image[..., 0] if channels == 1 else image
            frame = av.VideoFrame.from_ndarray(array, format=gray if channels == 1 else "rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def counting(length: int, **options: object) -> bytes:
    """The file of frames that show the numbers from 0 on."""
    return video(map(numbered, range(length)), **options)  # type: ignore[arg-type]
