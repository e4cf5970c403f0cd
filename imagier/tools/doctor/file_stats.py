"""Statistics of one file, read as training reads it, in a fixed number of bytes."""

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
"""low, high: smallest and largest value. digest: of size and pixels, so a file that is saved again keeps it.

Data without pixels has only height and width: for key points, their number and the numbers per point.
"""

_WEBP_LOSSY = b"VP8 "


class Flag(enum.IntFlag):
    """Yes-or-no properties of a file."""

    UNREAD = enum.auto()
    UNREADABLE = enum.auto()
    WRONG_FORM = enum.auto()
    """Its channels or bits differ from what the config expects."""
    WRONG_CLASS = enum.auto()
    NOT_FINITE = enum.auto()
    CONSTANT = enum.auto()
    """Every pixel is the same."""
    ROTATED = enum.auto()
    """Its EXIF orientation rotates or mirrors it when it is read."""
    LOSSY = enum.auto()
    """Its format changes pixel values."""


_FLAGS = {"unknown-class": Flag.WRONG_CLASS, "not-finite": Flag.NOT_FINITE}
"""Error codes of codecs for what is wrong with the values of a file whose form is right."""

WRONG = Flag.UNREADABLE | Flag.WRONG_FORM | Flag.WRONG_CLASS | Flag.NOT_FINITE
"""A file with any of these stops training."""


@dataclass(frozen=True)
class FileStats:
    """What reading one file found."""

    note: np.ndarray
    """A scalar of dtype NOTE."""
    message: str = ""
    """The error at which training would stop, with the name of the file."""
    values: tuple[np.ndarray, np.ndarray] | None = None
    """The values that occur, and the pixels of each, for 8-bit images of one channel and class maps."""
    remarks: Sequence[Remark] = ()
    """Remarks of its codec, if its form is right."""


def read_stats(source: Source, key: str, codec: Codec) -> FileStats:
    """Reads a file. Faults of the file are noted, not raised."""
    try:
        return (
            _read_video_stats(source, key, codec) if is_video(source, codec) else _read_file_stats(source, key, codec)
        )
    except UserError as error:
        note = np.zeros((), NOTE)
        note["flags"] = Flag.UNREADABLE
        return FileStats(note, str(error))


def load_image(source: Source, key: str, codec: Codec) -> np.ndarray:
    """Reads an image as stored, H x W x C, whatever its form; of a video, the middle frame.

    UserError if it cannot be read. Only for types with pixels.
    """
    if is_video(source, codec):
        video = _open_video(source, key, codec)
        try:
            return video.frame(len(video) // 2)
        finally:
            video.close()
    return codec.decode(EncodedFile.read(source, codec.name, key))


def is_video(source: Source, codec: Codec) -> bool:
    """Whether the files of this type are videos."""
    return source.extension(codec.name) in EXTENSIONS


def compute_luma(array: np.ndarray, side_px: int) -> np.ndarray:
    """Image as stored, H x W x C -> brightness of side_px x side_px cells, float32 in [0, 255]."""
    cells = cv2.resize(array, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    cells = cells.reshape(side_px, side_px, -1)
    gray = cells[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32) if cells.shape[2] >= 3 else cells.mean(axis=2)
    if array.dtype == np.uint8:
        return gray
    scale = 1 / 257 if array.dtype == np.uint16 else 255
    return np.clip(np.nan_to_num(gray * np.float32(scale)), 0, 255)


def _read_file_stats(source: Source, key: str, codec: Codec) -> FileStats:
    file = EncodedFile.read(source, codec.name, key)
    array = codec.decode(file)
    flags, message, remarks = _check(array, codec, file.where)
    if not codec.has_pixels:
        note = np.zeros((), NOTE)
        note["height"], note["width"] = array.shape[:2]
        note["flags"] = flags
        return FileStats(note, message, remarks=remarks)
    data, header = file.data, file.header
    if header is not None and header.orientation != 1:
        flags |= Flag.ROTATED
    if (header is not None and header.is_jpeg) or (data[8:12] == b"WEBP" and data[12:16] == _WEBP_LOSSY):
        flags |= Flag.LOSSY
    return FileStats(_make_note(array, codec, flags), message, _count_values(array, codec), remarks)


def _read_video_stats(source: Source, key: str, codec: Codec) -> FileStats:
    """Decodes every frame. Size and luma are those of the middle frame."""
    video = _open_video(source, key, codec)
    flags, message = Flag(0), ""
    remarks: Sequence[Remark] = ()
    low, high, pixels = np.inf, -np.inf, np.zeros(65536, np.int64)
    digests = []
    try:
        for number in range(len(video)):
            frame = video.frame(number)
            if not message:
                flags, message, found = _check(frame, codec, f"{video.where}, frame {number}")
                remarks = found if number <= len(video) // 2 else remarks
            digests.append(_hash_pixels(frame))
            low, high = min(low, frame.min()), max(high, frame.max())
            values = _count_values(frame, codec)
            if values is not None:
                pixels[values[0]] += values[1]
            if number == len(video) // 2:
                note = _make_note(frame, codec, Flag(0))
    finally:
        video.close()
    note["flags"] = int(note["flags"]) | flags
    if len(set(digests)) > 1:
        note["flags"] &= ~np.uint16(Flag.CONSTANT)  # the middle frame may be black between two scenes
    note["low"], note["high"] = low, high
    note["digest"] = int.from_bytes(hashlib.sha256(b"".join(digests)).digest()[:8], "little")
    there = np.flatnonzero(pixels)
    return FileStats(note, message, (there, pixels[there]) if len(there) else None, remarks)


def _open_video(source: Source, key: str, codec: Codec) -> Video:
    channels, where = codec.input_type.num_channels, source.where(codec.name, key)
    video = Video(source.open(codec.name, key), where, channels=channels, exact=codec.holds_ids)
    if not len(video):
        video.close()
        advice = "restore it or remove it from the set"
        raise UserError("shows no frame", where=video.where, advice=advice, code="no-frames")
    return video


def _check(array: np.ndarray, codec: Codec, where: str) -> tuple[Flag, str, Sequence[Remark]]:
    """Why training would refuse a decoded array; and the remarks of its codec, if its form is right."""
    try:
        codec.check(array, where)
    except UserError as error:
        if error.code not in _FLAGS:
            return Flag.WRONG_FORM, str(error), ()
        return _FLAGS[error.code], str(error), () if error.code == "not-finite" else codec.examine(array)
    return Flag(0), "", codec.examine(array)


def _make_note(array: np.ndarray, codec: Codec, flags: Flag) -> np.ndarray:
    note = np.zeros((), NOTE)
    note["height"], note["width"], note["channels"] = array.shape
    note["bits"] = 8 * array.itemsize
    note["low"], note["high"] = array.min(), array.max()
    note["digest"] = int.from_bytes(_hash_pixels(array), "little")
    if not codec.holds_ids:
        note["luma"] = compute_luma(array, LUMA_PX).round()
    if array.dtype == np.float32 and not np.isfinite(array).all():
        flags |= Flag.NOT_FINITE
    if (array[0, 0] == array[-1, -1]).all() and (array == array[0, 0]).all():
        flags |= Flag.CONSTANT
    note["flags"] = flags
    return note


def _count_values(array: np.ndarray, codec: Codec) -> tuple[np.ndarray, np.ndarray] | None:
    if array.shape[2] != 1 or array.dtype == np.float32 or (array.dtype != np.uint8 and codec.num_classes is None):
        return None
    pixels = np.bincount(array.ravel())
    there = np.flatnonzero(pixels)
    return there, pixels[there]


def _hash_pixels(array: np.ndarray) -> bytes:
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.digest()[:8]
