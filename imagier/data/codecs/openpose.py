"""People as OpenPose finds them (Cao et al. 2017): JSON files of points, which become strokes of an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from imagier.data import codec
from imagier.data.augmentation.augment import Drawn
from imagier.data.codec import InputType, Remark, Stored
from imagier.data.codecs.image import scale_values
from imagier.data.codecs.keypoints import check_finite, describe_error, wrong_content
from imagier.data.decoding.decode import EncodedFile
from imagier.data.drawing.pose import COLOR_CHANNELS, NUM_POINTS, PART_CHANNELS, PARTS, draw_pose
from imagier.errors import UserError
from imagier.nn.colorize import palette
from imagier.ranges import Share

NOBODY = Remark(
    "nobody",
    "without a person, of which nothing is drawn",
    "remove these frames, or run OpenPose on them again",
)

_SURE = 0.01


class Codec(codec.Codec):
    """Points of body, face and hands, in the pixels of the image -> strokes in [0, 1].

    With 3 channels each stroke has its color. With 27 each has a channel: 24 of the body, left hand, right hand, face.
    Of several people the first counts, the one that all_indices.json names, or the largest. No person: no stroke.
    """

    has_pixels = False
    is_drawn = True
    holds_ids = True

    def __init__(
        self,
        input_type: InputType,
        *,
        largest_only: bool = False,
        basic_points_only: bool = False,
        remove_face: bool = False,
        random_drop_prob: Share = 0.0,
    ) -> None:
        """largest_only: Of several people draw the tallest, instead of the first.
        basic_points_only: Draw neither feet, hands nor face.
        remove_face: Do not draw the face.
        random_drop_prob: In training: how likely each stroke is to be left out.

        UserError unless there are 3 or 27 channels.
        """
        super().__init__(input_type)
        if input_type.num_channels not in (COLOR_CHANNELS, PART_CHANNELS):
            what = f"strokes have {COLOR_CHANNELS} channels (colors) or {PART_CHANNELS}, not {input_type.num_channels}"
            raise UserError(what, where=input_type.name, advice="correct num_channels", code="wrong-channels")
        self.largest_only = largest_only
        self.basic_points_only = basic_points_only
        self.remove_face = remove_face
        self.random_drop_prob = random_drop_prob

    def decode(self, file: EncodedFile) -> np.ndarray:
        """A file of OpenPose -> 137 x 3, float64: x, y, confidence. UserError for any other content."""
        try:
            people = [_list_points(person) for person in json.loads(file.data)["people"]]
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            raise wrong_content(file, "a file of OpenPose", describe_error(error)) from error
        if file.person and self.largest_only:
            what = f"all_indices.json means person {file.person}, but largest_only the largest"
            raise UserError(what, where=file.where, advice="leave one of the two out", code="two-people")
        if not people and not file.person:
            return np.zeros((NUM_POINTS, 3))
        if file.person >= len(people):
            advice = "correct all_indices.json, which counts from 0"
            what = f"has no person {file.person}: it shows {len(people)}"
            raise UserError(what, where=file.where, advice=advice, code="no-person")
        person = max(people, key=_measure_height) if self.largest_only else people[file.person]
        check_finite(person, file)
        return person

    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """H x W x 3 or 27, uint8."""
        rng, prob = drawn.rng, self.random_drop_prob
        return draw_pose(
            drawn.move_points(stored.array, stored.size),
            drawn.size,
            channels=self.input_type.num_channels or 0,
            basic_points_only=self.basic_points_only,
            remove_face=self.remove_face,
            drops=lambda: rng is not None and rng.random() <= prob,
        )

    def expand(self, stored: Tensor) -> Tensor:
        """Strokes in [0, 1], or [-1, 1] with `normalize`."""
        return scale_values(stored, self.input_type)

    def examine(self, array: np.ndarray) -> Sequence[Remark]:
        """Whether nobody is seen."""
        return () if (array[:, 2] > _SURE).any() else [NOBODY]

    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """Strokes on black; each channel in a color of its own."""
        if array.ndim == 2:  # as stored
            assert canvas is not None
            array = draw_pose(array, canvas.shape[:2], channels=COLOR_CHANNELS)
            return np.where(array.any(axis=2, keepdims=True), array, canvas)
        if array.shape[2] == COLOR_CHANNELS:
            return array
        colors = palette(PART_CHANNELS + 1).numpy()[1:]
        return np.where(array.any(axis=2, keepdims=True), colors[array.argmax(axis=2)], 0).astype(np.uint8)


def _list_points(person: dict[str, Any]) -> np.ndarray:
    """All points of a person, 137 x 3; those of parts that were not looked for are 0."""
    points = np.zeros((NUM_POINTS, 3))
    start = 0
    for name, count in PARTS.items():
        numbers = person.get(name)
        if numbers or name == next(iter(PARTS)):
            points[start : start + count] = np.reshape(np.array(numbers, np.float64), (count, 3))
        start += count
    return points


def _measure_height(points: np.ndarray) -> float:
    """The height of the body as far as it is seen."""
    body = points[: next(iter(PARTS.values()))]
    seen = body[body[:, 2] > _SURE, 1]
    return float(np.ptp(seen)) if len(seen) else -1.0
