"""Reads one file as training does, and notes what it is: a picture, key points, or a video."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from imagier.data.doctor.note import LUMA_PX, NOTE, Flag, Look, holds_mixtures, luma
from imagier.data.header import read_header
from imagier.data.points import decode_points
from imagier.data.sample import InputType, check_classes, decode
from imagier.data.source import Source
from imagier.data.video_files import EXTENSIONS, Video
from imagier.errors import UserError

_WEBP_LOSSY = b"VP8 "


def look(source: Source, key: str, kind: InputType, *, use_dont_care: bool) -> Look:
    """What is known of a file. What is wrong with it is noted, not raised."""
    try:
        if kind.is_points:
            decode_points(source.read(kind.name, key), source.where(kind.name, key))
            return Look(np.zeros((), NOTE))
        if is_video(source, kind):
            return _look_at_video(source, key, kind, use_dont_care)
        return _look_at_picture(source, key, kind, use_dont_care)
    except UserError as error:
        note = np.zeros((), NOTE)
        note["flags"] = Flag.UNREADABLE
        return Look(note, str(error))


def picture(source: Source, key: str, kind: InputType) -> np.ndarray:
    """A picture as stored, H x W x C, whatever its form; of a video, the frame in its middle.

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
    """Whether a file of this type holds many pictures."""
    return source.extension(kind.name) in EXTENSIONS


def _look_at_picture(source: Source, key: str, kind: InputType, use_dont_care: bool) -> Look:
    where, extension = source.where(kind.name, key), source.extension(kind.name)
    data = source.read(kind.name, key)
    array, message = _decoded(data, kind, extension, where)
    flags = Flag.WRONG_FORM
    if not message:
        flags, message = _of_classes(array, kind, use_dont_care, where)
    header = read_header(data, where)
    if header is not None and header.orientation != 1:
        flags |= Flag.TURNED
    if (header is not None and header.is_jpeg) or (data[8:12] == b"WEBP" and data[12:16] == _WEBP_LOSSY):
        flags |= Flag.LOSSY
    return Look(_noted(array, kind, flags), message, _values(array, kind))


def _look_at_video(source: Source, key: str, kind: InputType, use_dont_care: bool) -> Look:
    """Every frame is decoded; the size and the look are those of the one in the middle."""
    video = _opened(source, key, kind)
    flags, message = Flag(0), ""
    low, high, pixels = np.inf, -np.inf, np.zeros(65536, np.int64)
    digest = hashlib.sha256()
    try:
        for number in range(len(video)):
            frame = video.frame(number)
            if not message:
                flags, message = _of_classes(frame, kind, use_dont_care, f"{video.where}, frame {number}")
            digest.update(_digest(frame))
            low, high = min(low, frame.min()), max(high, frame.max())
            values = _values(frame, kind)
            if values is not None:
                pixels[values[0]] += values[1]
            if number == len(video) // 2:
                note = _noted(frame, kind, Flag(0))
    finally:
        video.close()
    note["flags"] = int(note["flags"]) | flags
    note["low"], note["high"] = low, high
    note["digest"] = int.from_bytes(digest.digest()[:8], "little")
    there = np.flatnonzero(pixels)
    return Look(note, message, (there, pixels[there]) if len(there) else None)


def _opened(source: Source, key: str, kind: InputType) -> Video:
    channels = 1 if kind.num_classes is not None else kind.num_channels
    exact = kind.is_mask or kind.num_classes is not None
    return Video(source.open(kind.name, key), source.where(kind.name, key), channels=channels, exact=exact)


def _decoded(data: bytes, kind: InputType, extension: str, where: str) -> tuple[np.ndarray, str]:
    """A picture in whatever form it has, and why training would not take it in that. UserError if it is damaged."""
    try:
        return decode(data, kind, extension, where), ""
    except UserError as error:
        return decode(data, replace(kind, num_channels=None, normalize=False), extension, where), str(error)


def _of_classes(array: np.ndarray, kind: InputType, use_dont_care: bool, where: str) -> tuple[Flag, str]:
    try:
        check_classes(array, kind, use_dont_care, where)
    except UserError as error:
        return (Flag.WRONG_CLASS if array.shape[2] == 1 else Flag.WRONG_FORM), str(error)
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
