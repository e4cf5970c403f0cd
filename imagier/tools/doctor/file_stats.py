"""What one file is: read as training reads it, and noted in a fixed number of bytes, however large it is."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, replace

import cv2
import numpy as np

from imagier.data.decoding.header import read_header
from imagier.data.decoding.points import decode_points
from imagier.data.decoding.sample import InputType, check_classes, check_value_range, decode
from imagier.data.decoding.video_files import EXTENSIONS, Video
from imagier.data.sources.source import Source
from imagier.errors import UserError

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
"""low, high: the smallest and the largest value. digest: of size and pixels, so that a file saved anew has it too.

Key points have only height and width: how many they are, and how many numbers each has.
"""

NOTHING = 255
"""The value that stands for no class in 8-bit maps."""

_SHARE_OF_THIRDS, _LEAST_THIRDS = 0.15, 20
_WEBP_LOSSY = b"VP8 "


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
class FileStats:
    """What is known of one file after it has been read."""

    note: np.ndarray
    """Of dtype NOTE, without dimensions."""
    message: str = ""
    """Why training would stop at it, with its name."""
    values: tuple[np.ndarray, np.ndarray] | None = None
    """The values that occur and the pixels with each: of 8-bit images of one channel, and of maps of classes."""


def look(source: Source, key: str, kind: InputType, *, use_dont_care: bool) -> FileStats:
    """What is known of a file. What is wrong with it is noted, not raised."""
    try:
        if kind.is_points:
            return _look_at_points(source, key, kind)
        if is_video(source, kind):
            return _look_at_video(source, key, kind, use_dont_care)
        return _look_at_image(source, key, kind, use_dont_care)
    except UserError as error:
        note = np.zeros((), NOTE)
        note["flags"] = Flag.UNREADABLE
        return FileStats(note, str(error))


def image(source: Source, key: str, kind: InputType) -> np.ndarray:
    """An image as stored, H x W x C, whatever its form; of a video, the frame in its middle.

    UserError if it cannot be read. Not for key points.
    """
    if is_video(source, kind):
        video = _opened(source, key, kind)
        try:
            return video.frame(len(video) // 2)
        finally:
            video.close()
    data, where = source.read(kind.name, key), source.where(kind.name, key)
    return _decoded(data, kind, source.extension(kind.name), where)[0]


def is_video(source: Source, kind: InputType) -> bool:
    """Whether a file of this type holds many images."""
    return source.extension(kind.name) in EXTENSIONS


def luma(array: np.ndarray, side_px: int) -> np.ndarray:
    """An image H x W x C as stored -> its brightness in side_px x side_px cells, float32 in [0, 255]."""
    cells = cv2.resize(array, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    cells = cells.reshape(side_px, side_px, -1)
    gray = cells[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32) if cells.shape[2] >= 3 else cells.mean(axis=2)
    if array.dtype == np.uint8:
        return gray
    scale = 1 / 257 if array.dtype == np.uint16 else 255
    return np.clip(np.nan_to_num(gray * np.float32(scale)), 0, 255)


def holds_mixtures(names: np.ndarray) -> bool:
    """Whether a map H x W of names (8 or 16 bits) has been smoothed or compressed somewhere on its way.

    Both put a third value between two areas. Of the places where the value left of a pixel is not the one right of it
    (or above and below), the pixel itself is another one in less than 5 of 100 in clean maps, even in small ones of
    many areas; in 20 to 80 after interpolation, blur or JPEG. (tests/data/doctor/test_look.py)
    """
    changes = third = 0
    for rows in (names, names.T):
        before, here, after = rows[:, :-2], rows[:, 1:-1], rows[:, 2:]
        change = before != after
        changes += np.count_nonzero(change)
        # A line of the value for nothing may well be drawn between two areas.
        third += np.count_nonzero(change & (here != before) & (here != after) & (here != NOTHING))
    return third >= _LEAST_THIRDS and third > _SHARE_OF_THIRDS * changes


def _look_at_image(source: Source, key: str, kind: InputType, use_dont_care: bool) -> FileStats:
    where, extension = source.where(kind.name, key), source.extension(kind.name)
    data = source.read(kind.name, key)
    array, message = _decoded(data, kind, extension, where)
    flags = Flag.WRONG_FORM
    if not message:
        flags, message = _judged(array, kind, use_dont_care, where)
    header = read_header(data, where)
    if header is not None and header.orientation != 1:
        flags |= Flag.TURNED
    if (header is not None and header.is_jpeg) or (data[8:12] == b"WEBP" and data[12:16] == _WEBP_LOSSY):
        flags |= Flag.LOSSY
    return FileStats(_noted(array, kind, flags), message, _values(array, kind))


def _look_at_points(source: Source, key: str, kind: InputType) -> FileStats:
    note = np.zeros((), NOTE)
    note["height"], note["width"] = decode_points(source.read(kind.name, key), source.where(kind.name, key)).shape
    return FileStats(note)


def _look_at_video(source: Source, key: str, kind: InputType, use_dont_care: bool) -> FileStats:
    """Every frame is decoded; the size and the look are those of the one in the middle."""
    video = _opened(source, key, kind)
    flags, message = Flag(0), ""
    low, high, pixels = np.inf, -np.inf, np.zeros(65536, np.int64)
    digests = []
    try:
        for number in range(len(video)):
            frame = video.frame(number)
            if not message:
                flags, message = _judged(frame, kind, use_dont_care, f"{video.where}, frame {number}")
            digests.append(_digest(frame))
            low, high = min(low, frame.min()), max(high, frame.max())
            values = _values(frame, kind)
            if values is not None:
                pixels[values[0]] += values[1]
            if number == len(video) // 2:
                note = _noted(frame, kind, Flag(0))
    finally:
        video.close()
    note["flags"] = int(note["flags"]) | flags
    if len(set(digests)) > 1:
        note["flags"] &= ~np.uint16(Flag.CONSTANT)  # between two scenes the frame in the middle may be black
    note["low"], note["high"] = low, high
    note["digest"] = int.from_bytes(hashlib.sha256(b"".join(digests)).digest()[:8], "little")
    there = np.flatnonzero(pixels)
    return FileStats(note, message, (there, pixels[there]) if len(there) else None)


def _opened(source: Source, key: str, kind: InputType) -> Video:
    channels = 1 if kind.num_classes is not None else kind.num_channels
    exact = kind.is_mask or kind.num_classes is not None
    video = Video(source.open(kind.name, key), source.where(kind.name, key), channels=channels, exact=exact)
    if not len(video):
        video.close()
        raise UserError("shows no frame", where=video.where, advice="restore it or remove it from the set")
    return video


def _decoded(data: bytes, kind: InputType, extension: str, where: str) -> tuple[np.ndarray, str]:
    """An image in whatever form it has, and why training would not take it in that. UserError if it is damaged."""
    try:
        return decode(data, kind, extension, where), ""
    except UserError as error:
        return decode(data, replace(kind, num_channels=None, normalize=False), extension, where), str(error)


def _judged(array: np.ndarray, kind: InputType, use_dont_care: bool, where: str) -> tuple[Flag, str]:
    """Why training would not take an image that can be decoded."""
    try:
        check_value_range(array, kind, where)
        check_classes(array, kind, use_dont_care, where)
    except UserError as error:
        is_map = kind.num_classes is not None and array.shape[2] == 1
        return (Flag.WRONG_CLASS if is_map else Flag.WRONG_FORM), str(error)
    return Flag(0), ""


def _noted(array: np.ndarray, kind: InputType, flags: Flag) -> np.ndarray:
    note = np.zeros((), NOTE)
    note["height"], note["width"], note["channels"] = array.shape
    note["bits"] = 8 * array.itemsize
    note["low"], note["high"] = array.min(), array.max()
    note["digest"] = int.from_bytes(_digest(array), "little")
    if not kind.is_mask:
        note["luma"] = luma(array, LUMA_PX).round()
    if array.dtype == np.float32 and not np.isfinite(array).all():
        flags |= Flag.NOT_FINITE
    if (array[0, 0] == array[-1, -1]).all() and (array == array[0, 0]).all():
        flags |= Flag.CONSTANT
    if kind.is_mask and array.shape[2] == 1 and array.dtype != np.float32 and holds_mixtures(array[..., 0]):
        flags |= Flag.MIXED
    note["flags"] = flags
    return note


def _values(array: np.ndarray, kind: InputType) -> tuple[np.ndarray, np.ndarray] | None:
    if array.shape[2] != 1 or array.dtype == np.float32 or (array.dtype != np.uint8 and kind.num_classes is None):
        return None
    pixels = np.bincount(array.ravel())
    there = np.flatnonzero(pixels)
    return there, pixels[there]


def _digest(array: np.ndarray) -> bytes:
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.digest()[:8]
