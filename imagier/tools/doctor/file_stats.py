"""What one file is: read as training reads it, and noted in a fixed number of bytes, however large it is."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from imagier.data.codec import Codec, Remark
from imagier.data.decoding.decode import EncodedFile
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

Data without pixels have only height and width: of key points how many they are, and how many numbers each has.
"""

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


UNKNOWN_CLASS = "unknown-class"
"""The code of the error of a codec that finds a class that the config does not know."""

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
    remarks: Sequence[Remark] = ()
    """What its codec says about it, if its form is right."""


def look(source: Source, key: str, codec: Codec) -> FileStats:
    """What is known of a file. What is wrong with it is noted, not raised."""
    try:
        return _look_at_video(source, key, codec) if is_video(source, codec) else _look_at_file(source, key, codec)
    except UserError as error:
        note = np.zeros((), NOTE)
        note["flags"] = Flag.UNREADABLE
        return FileStats(note, str(error))


def image(source: Source, key: str, codec: Codec) -> np.ndarray:
    """An image as stored, H x W x C, whatever its form; of a video, the frame in its middle.

    UserError if it cannot be read. Only for what has pixels.
    """
    if is_video(source, codec):
        video = _open_video(source, key, codec)
        try:
            return video.frame(len(video) // 2)
        finally:
            video.close()
    return codec.decode(EncodedFile.read(source, codec.name, key))


def is_video(source: Source, codec: Codec) -> bool:
    """Whether a file of this type holds many images."""
    return source.extension(codec.name) in EXTENSIONS


def luma(array: np.ndarray, side_px: int) -> np.ndarray:
    """An image H x W x C as stored -> its brightness in side_px x side_px cells, float32 in [0, 255]."""
    cells = cv2.resize(array, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    cells = cells.reshape(side_px, side_px, -1)
    gray = cells[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32) if cells.shape[2] >= 3 else cells.mean(axis=2)
    if array.dtype == np.uint8:
        return gray
    scale = 1 / 257 if array.dtype == np.uint16 else 255
    return np.clip(np.nan_to_num(gray * np.float32(scale)), 0, 255)


def _look_at_file(source: Source, key: str, codec: Codec) -> FileStats:
    file = EncodedFile.read(source, codec.name, key)
    array = codec.decode(file)
    flags, message, remarks = _judge(array, codec, file.where)
    if not codec.has_pixels:
        note = np.zeros((), NOTE)
        note["height"], note["width"] = array.shape[:2]
        note["flags"] = flags
        return FileStats(note, message, remarks=remarks)
    data, header = file.data, file.header
    if header is not None and header.orientation != 1:
        flags |= Flag.TURNED
    if (header is not None and header.is_jpeg) or (data[8:12] == b"WEBP" and data[12:16] == _WEBP_LOSSY):
        flags |= Flag.LOSSY
    return FileStats(_note(array, codec, flags), message, _values(array, codec), remarks)


def _look_at_video(source: Source, key: str, codec: Codec) -> FileStats:
    """Every frame is decoded; the size and the look are those of the one in the middle."""
    video = _open_video(source, key, codec)
    flags, message = Flag(0), ""
    remarks: Sequence[Remark] = ()
    low, high, pixels = np.inf, -np.inf, np.zeros(65536, np.int64)
    digests = []
    try:
        for number in range(len(video)):
            frame = video.frame(number)
            if not message:
                flags, message, found = _judge(frame, codec, f"{video.where}, frame {number}")
                remarks = found if number <= len(video) // 2 else remarks
            digests.append(_digest(frame))
            low, high = min(low, frame.min()), max(high, frame.max())
            values = _values(frame, codec)
            if values is not None:
                pixels[values[0]] += values[1]
            if number == len(video) // 2:
                note = _note(frame, codec, Flag(0))
    finally:
        video.close()
    note["flags"] = int(note["flags"]) | flags
    if len(set(digests)) > 1:
        note["flags"] &= ~np.uint16(Flag.CONSTANT)  # between two scenes the frame in the middle may be black
    note["low"], note["high"] = low, high
    note["digest"] = int.from_bytes(hashlib.sha256(b"".join(digests)).digest()[:8], "little")
    there = np.flatnonzero(pixels)
    return FileStats(note, message, (there, pixels[there]) if len(there) else None, remarks)


def _open_video(source: Source, key: str, codec: Codec) -> Video:
    channels, where = codec.input_type.num_channels, source.where(codec.name, key)
    video = Video(source.open(codec.name, key), where, channels=channels, exact=codec.holds_ids)
    if not len(video):
        video.close()
        raise UserError("shows no frame", where=video.where, advice="restore it or remove it from the set")
    return video


def _judge(array: np.ndarray, codec: Codec, where: str) -> tuple[Flag, str, Sequence[Remark]]:
    """Why training would not take an array that can be decoded; and if its form is right, the remarks of its codec."""
    try:
        codec.check(array, where)
    except UserError as error:
        if error.code != UNKNOWN_CLASS:
            return Flag.WRONG_FORM, str(error), ()
        return Flag.WRONG_CLASS, str(error), codec.examine(array)
    return Flag(0), "", codec.examine(array)


def _note(array: np.ndarray, codec: Codec, flags: Flag) -> np.ndarray:
    note = np.zeros((), NOTE)
    note["height"], note["width"], note["channels"] = array.shape
    note["bits"] = 8 * array.itemsize
    note["low"], note["high"] = array.min(), array.max()
    note["digest"] = int.from_bytes(_digest(array), "little")
    if not codec.holds_ids:
        note["luma"] = luma(array, LUMA_PX).round()
    if array.dtype == np.float32 and not np.isfinite(array).all():
        flags |= Flag.NOT_FINITE
    if (array[0, 0] == array[-1, -1]).all() and (array == array[0, 0]).all():
        flags |= Flag.CONSTANT
    note["flags"] = flags
    return note


def _values(array: np.ndarray, codec: Codec) -> tuple[np.ndarray, np.ndarray] | None:
    if array.shape[2] != 1 or array.dtype == np.float32 or (array.dtype != np.uint8 and codec.num_classes is None):
        return None
    pixels = np.bincount(array.ravel())
    there = np.flatnonzero(pixels)
    return there, pixels[there]


def _digest(array: np.ndarray) -> bytes:
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.digest()[:8]
