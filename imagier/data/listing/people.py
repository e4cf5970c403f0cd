"""Which part of a clip shows a face, or a person; the frames for reference have one of their own.

Wang et al., Few-shot Video-to-Video Synthesis, 2019.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from imagier.data.augmentation.warp import Part, Size
from imagier.data.codec import Codec
from imagier.data.listing.clips import Arrays, Frames
from imagier.errors import UserError

CropKind = Literal["face", "person"]

LANDMARKS, DENSEPOSE, OPENPOSE, PEOPLE = (
    "landmarks-dlib68",
    "pose_maps-densepose",
    "poses-openpose",
    "human_instance_maps",
)
"""Input types by their names: as in the reference, and no others. PEOPLE need not be there."""

NEEDED: dict[CropKind, str] = {"face": LANDMARKS, "person": DENSEPOSE}

Parts = tuple[Part, Part]
"""Of the clip, and of its reference."""

FindParts = Callable[[Frames, Frames, Size, random.Random | None], Parts]
"""(clip, reference, height and width of what comes out, source of what is random in training) -> the parts."""


def find_faces(clip: Frames, reference: Frames, size: Size, rng: random.Random | None) -> Parts:
    """Around the face of the first frame. In training, moved and scaled a little."""
    jitter = [rng.uniform(-0.2, 0.2) for _ in range(2)] if rng else [0.0, 0.0]
    scale = [rng.uniform(0.8, 1.2) for _ in range(2)] if rng else [1.0, 1.0]
    of_reference = _find_face(reference, jitter, scale)
    jitter = [rng.uniform(-0.2, 0.2) for _ in range(2)] if rng else jitter
    return _find_face(clip, jitter, scale), of_reference


def _find_face(frames: Frames, jitter: Sequence[float], scale: Sequence[float]) -> Part:
    height, width = frames.drawn.size
    stored = frames.moments[0][LANDMARKS]
    points = frames.drawn.move_points(stored.array, stored.size)[:, :2]
    left, top = points.min(axis=0).astype(int).tolist()
    right, bottom = points.max(axis=0).astype(int).tolist()
    x, y, side = (left + right) // 2, (top + bottom) // 2, max(1, right - left)
    half_w, half_h = side * scale[0], side * scale[1]
    x, y = x + int(jitter[0] * half_w), y + int(jitter[1] * half_h)
    x = max(half_w, min(width - half_w, x))
    y = max(1.25 * half_h, min(height - 0.75 * half_h, y))
    return _clip(y - 1.25 * half_h, y + 0.75 * half_h, x - half_w, x + half_w, frames.drawn.size)


def find_people(clip: Frames, reference: Frames, size: Size, rng: random.Random | None) -> Parts:
    """Around all places where the person is in any frame. In training, moved and scaled a little."""
    spreads = (0.05, 0.02)
    jitters = [[rng.gauss(0, spread) if rng else 0.0 for _ in range(2)] for spread in spreads]
    scales = [min(2.0, max(1.0, 1.5 + (rng.gauss(0, spread) if rng else 0.0))) for spread in spreads]
    first, second = (
        _find_person(frames, size, [max(-1.0, min(1.0, each)) for each in jitter], scale)
        for frames, jitter, scale in zip((clip, reference), jitters, scales)
    )
    return first, second


def _find_person(frames: Frames, size: Size, jitter: Sequence[float], scale: float) -> Part:
    height, width = frames.drawn.size
    aspect = size[1] / size[0]
    there = np.any([arrays[DENSEPOSE][..., :3].any(axis=2) for arrays in frames.arrays], axis=0)
    if not there.any():
        half_w = int(height * aspect // 2)
        return _clip(0, height, width // 2 - half_w, width // 2 + half_w, (height, width))
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    y, x = int(rows[0] + rows[-1]) // 2, int(columns[0] + columns[-1]) // 2
    half_h = int(min(height, max(height // 2, (rows[-1] - rows[0]) * scale))) // 2
    half_h = max(half_h, int((columns[-1] - columns[0]) * scale / aspect) // 2)
    half_w = int(half_h * aspect)
    x, y = x + int(jitter[0] * half_w), y + int(jitter[1] * half_h)
    x, y = max(half_w, min(width - half_w, x)), max(half_h, min(height - half_h, y))
    return _clip(y - half_h, y + half_h, x - half_w, x + half_w, (height, width))


FINDERS: dict[CropKind, FindParts] = {"face": find_faces, "person": find_people}


def remove_others(arrays: Arrays) -> Arrays:
    """One frame, without the people of PEOPLE that OpenPose has not found: the label is 0 there.

    The one that most of its first three channels lie on stays. Without PEOPLE, or strokes, all stay.
    """
    if PEOPLE not in arrays or OPENPOSE not in arrays:
        return arrays
    ids = arrays[PEOPLE][..., 0]
    under = ids[arrays[OPENPOSE][..., :3].any(axis=2)]
    if not len(under):
        return arrays
    values, counts = np.unique(under, return_counts=True)
    is_theirs = (ids == values[counts.argmax()])[..., None]
    return arrays | {name: arrays[name] * is_theirs for name in (DENSEPOSE, OPENPOSE) if name in arrays}


def crop_frames(frames: Sequence[Arrays], codecs: Sequence[Codec], part: Part, size: Size) -> list[Arrays]:
    """The same part of all frames, resized."""
    by_name = {codec.name: codec for codec in codecs}
    return [{name: by_name[name].crop(array, part, size) for name, array in arrays.items()} for arrays in frames]


def check_crop(kind: CropKind, codecs: Sequence[Codec], where: str) -> None:
    """UserError if there is no input type in which faces or people could be found. where: the key that asks for it."""
    if NEEDED[kind] not in [codec.name for codec in codecs]:
        what = f"needs an input type {NEEDED[kind]!r}"
        raise UserError(what, where=where, advice="add it, or remove the key", code="missing-input-type")


def _clip(top: float, bottom: float, left: float, right: float, size: Size) -> Part:
    """The pixels of a box that lie in the image, at least one."""
    height, width = size
    first_row, first_column = min(max(0, int(top)), height - 1), min(max(0, int(left)), width - 1)
    return Part(
        first_row,
        max(first_row + 1, min(height, int(bottom))),
        first_column,
        max(first_column + 1, min(width, int(right))),
    )
