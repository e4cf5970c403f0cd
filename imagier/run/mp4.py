"""MP4 files of generated frames: H.264 where PyAV has it, else MPEG-4."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np

from imagier.errors import UserError

CODECS = ("libx264", "mpeg4")
"""The first that the build has is taken."""

OPTIONS = {
    "libx264": {"crf": "15", "preset": "medium", "threads": "1"},
    "mpeg4": {"qmin": "2", "qmax": "3", "threads": "1"},
}
"""With several threads x264 gives, once in a while on a busy machine, other bytes for the same frames."""


def check_can_encode() -> None:
    """UserError if PyAV is not installed."""
    if find_spec("av") is None:
        what, advice = "the package av is not installed, which writes videos", "run: pip install 'imagier[video]'"
        raise UserError(what, advice=advice, code="missing-package")


def encode_mp4(file: IO[bytes], frames: Iterable[np.ndarray], fps: float, comment: str) -> None:
    """Writes frames H x W x 3, uint8, in constant memory. comment: what `read_header` finds.

    Sides of an odd length get one more pixel, as colors have half the resolution. All frames must have one size.
    """
    import av

    codec = next(name for name in CODECS if name in av.codecs_available)
    with av.open(file, "w", format="mp4") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream(codec, rate=_to_rate(fps), options=OPTIONS[codec])
        stream.pix_fmt = "yuv420p"
        for number, pixels in enumerate(frames):
            height, width = pixels.shape[:2]
            if number == 0:
                stream.height, stream.width = height + height % 2, width + width % 2
            even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode(None))


def read_header(path: Path) -> tuple[str, int]:
    """The comment of a file, and how many frames it has; ("", 0) if there is no such file, or it is no video."""
    import av

    if not path.is_file():
        return "", 0
    try:
        with av.open(str(path)) as container:
            return container.metadata.get("comment", ""), container.streams.video[0].frames
    except (av.FFmpegError, IndexError):
        return "", 0


def _to_rate(fps: float) -> object:
    from fractions import Fraction

    return Fraction(fps).limit_denominator(1001)
