"""What the doctor notes of one file: a fixed number of bytes, however large the picture is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import cv2
import numpy as np

LUMA_PX = 8

NOTE = np.dtype(
    [
        ("flags", "<u2"),
        ("channels", "u1"),
        ("bits", "u1"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("low", "<f4"),
        ("high", "<f4"),
        ("digest", "<u8"),
        ("luma", "u1", (LUMA_PX, LUMA_PX)),
    ]
)
"""low, high: the smallest and the largest value. digest: of size and pixels, so that a file saved anew has it too."""

NOTHING = 255
"""The value that stands for no class in 8-bit maps."""

_SHARE_OF_THIRDS, _LEAST_THIRDS = 0.15, 20


class Flag(enum.IntFlag):
    """What can be said of a file with yes or no."""

    UNSEEN = enum.auto()
    UNREADABLE = enum.auto()
    WRONG_FORM = enum.auto()
    """It has other channels or bits than the config expects."""
    WRONG_CLASS = enum.auto()
    NOT_FINITE = enum.auto()
    CONSTANT = enum.auto()
    """Every pixel is the same."""
    TURNED = enum.auto()
    """It is turned or mirrored when it is read, as EXIF says."""
    LOSSY = enum.auto()
    """A format that does not keep the values of pixels."""
    MIXED = enum.auto()
    """A map of names that has been blurred or compressed: it holds mixtures of names, which are others."""


WRONG = Flag.UNREADABLE | Flag.WRONG_FORM | Flag.WRONG_CLASS
"""Training stops at such a file."""


@dataclass(frozen=True)
class Look:
    """What is known of one file after it has been read."""

    note: np.ndarray
    """Of dtype NOTE, without dimensions."""
    message: str = ""
    """Why training would stop at it, with its name."""
    values: tuple[np.ndarray, np.ndarray] | None = None
    """The values that occur and the pixels with each: of 8-bit pictures of one channel, and of maps of classes."""


def luma(array: np.ndarray, side_px: int) -> np.ndarray:
    """A picture H x W x C as stored -> its brightness in side_px x side_px cells, float32 in [0, 255]."""
    cells = cv2.resize(array, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    cells = cells.reshape(side_px, side_px, -1)
    grey = cells[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32) if cells.shape[2] >= 3 else cells.mean(axis=2)
    if array.dtype == np.uint8:
        return grey
    scale = 1 / 257 if array.dtype == np.uint16 else 255
    return np.clip(np.nan_to_num(grey * np.float32(scale)), 0, 255)


def holds_mixtures(names: np.ndarray) -> bool:
    """Whether a map H x W of names (8 or 16 bits) has been smoothed or compressed somewhere on its way.

    Both put a third value between two areas. Of the places where the value left of a pixel is not the one right of it
    (or above and below), the pixel itself is another one in less than 5 of 100 in clean maps, even in small ones of
    many areas; in 20 to 80 after interpolation, blur or JPEG. (tests/data/test_doctor_note.py)
    """
    changes = third = 0
    for rows in (names, names.T):
        before, here, after = rows[:, :-2], rows[:, 1:-1], rows[:, 2:]
        change = before != after
        changes += np.count_nonzero(change)
        # A line of the value for nothing may well be drawn between two areas.
        third += np.count_nonzero(change & (here != before) & (here != after) & (here != NOTHING))
    return third >= _LEAST_THIRDS and third > _SHARE_OF_THIRDS * changes
