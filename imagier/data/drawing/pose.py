"""The strokes of a person from OpenPose's points: body, hands, face."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from imagier.data.drawing.strokes import draw_stroke, trace_curve

PARTS = {
    "pose_keypoints_2d": 25,
    "face_keypoints_2d": 70,
    "hand_left_keypoints_2d": 21,
    "hand_right_keypoints_2d": 21,
}
"""The arrays of a person in OpenPose's files, and the points of each, in the order of our rows."""

NUM_POINTS = sum(PARTS.values())

COLOR_CHANNELS, PART_CHANNELS = 3, 27
"""Strokes in colors; or a channel for each of 24 strokes of the body, both hands and the face."""

_BODY_EDGES = (
    (17, 15), (15, 0), (0, 16), (16, 18), (0, 1), (1, 8), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7),
    (8, 9), (9, 10), (10, 11), (8, 12), (12, 13), (13, 14),
    (11, 24), (11, 22), (22, 23), (14, 21), (14, 19), (19, 20),
)  # fmt: skip
_BASIC_EDGES = 18
"""Those without the feet come first."""

_BODY_COLORS = (
    (153, 0, 153), (153, 0, 102), (102, 0, 153), (51, 0, 153), (153, 0, 51), (153, 0, 0), (153, 51, 0),
    (153, 102, 0), (153, 153, 0), (102, 153, 0), (51, 153, 0), (0, 153, 0), (0, 153, 51), (0, 153, 102),
    (0, 153, 153), (0, 102, 153), (0, 51, 153), (0, 0, 153), *[(0, 153, 153)] * 3, *[(0, 0, 153)] * 3,
)  # fmt: skip
_HAND_CHAINS = tuple((0, *range(first, first + 4)) for first in (1, 5, 9, 13, 17))
_HAND_COLORS = ((204, 0, 0), (163, 204, 0), (0, 204, 82), (0, 82, 204), (163, 0, 204))
_FACE_CHAINS = (
    tuple(range(17)), tuple(range(17, 22)), tuple(range(22, 27)),
    (28, 29, 30, 31), tuple(range(31, 36)), (35, 28),
    (36, 37, 38, 39), (39, 40, 41, 36), (42, 43, 44, 45), (45, 46, 47, 42),
    tuple(range(48, 55)), (54, 55, 56, 57, 58, 59, 48),
)  # fmt: skip
_FACE_COLOR = (255, 255, 255)

_TALLEST = 4
"""Longer sides of the image: with a point that is far off by mistake, strokes would take all memory."""

_SURE, _SURE_OF_FACE = 0.01, 0.1
"""Confidence from which a point counts."""


class _Segment(NamedTuple):
    """A stroke between two points, with its color or, in a channel of its own, 255."""

    ends: np.ndarray
    channel: int
    color: Sequence[int]
    width: int
    is_body: bool


def draw_pose(
    points: np.ndarray,
    size: tuple[int, int],
    *,
    channels: int,
    basic_points_only: bool = False,
    remove_face: bool = False,
    drops: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """A person's points 137 x 3 (x, y, confidence) -> strokes, H x W x `channels` (3 or 27), uint8.

    size: height and width. basic_points_only: neither feet, hands nor face. drops: asked once for each stroke, whether
    it is left out. What OpenPose was not sure of is not drawn; of hands and faces only whole fingers and features are.
    """
    canvas = np.zeros((*size, channels), np.uint8)
    for segment in _list_segments(points, _TALLEST * max(size), basic_points_only, remove_face):
        if drops() or not segment.ends[:, 0].all():
            continue
        pixels = trace_curve(segment.ends)
        if channels == COLOR_CHANNELS:
            draw_stroke(canvas, pixels, segment.width, segment.color, has_discs=segment.is_body)
        else:
            one = canvas[..., segment.channel : segment.channel + 1]
            draw_stroke(one, pixels, segment.width, (255,), has_discs=segment.is_body)
    return canvas


def _list_segments(points: np.ndarray, tallest: int, basic_points_only: bool, remove_face: bool) -> Iterator[_Segment]:
    """All strokes in their order; those of points that are not sure end at x = 0.

    tallest: the height of a body, in pixels, up to which its strokes grow.
    """
    parts = np.split(points, np.cumsum(list(PARTS.values()))[:-1])
    body, face, *hands = parts
    body = np.where(body[:, 2:] > _SURE, body[:, :2], 0)
    height = min(tallest, int(body[:, 1].max() - body[:, 1].min()))
    for number, edge in enumerate(_BODY_EDGES[: _BASIC_EDGES if basic_points_only else None]):
        yield _Segment(body[list(edge)], number, _BODY_COLORS[number], max(1, height // 150), is_body=True)
    if basic_points_only:
        return
    width, first = max(1, height // 450), len(_BODY_EDGES)
    for number, hand in enumerate(hands):
        sure = _keep_whole(hand, _HAND_CHAINS, _SURE)
        for chain, color in zip(_HAND_CHAINS, _HAND_COLORS):
            for edge in pairwise(chain):
                yield _Segment(sure[list(edge)], first + number, color, width, is_body=False)
    sure = _keep_whole(face, _FACE_CHAINS, _SURE_OF_FACE)
    for chain in _FACE_CHAINS if not remove_face else ():
        for edge in pairwise(chain):
            yield _Segment(sure[list(edge)], first + len(hands), _FACE_COLOR, width, is_body=False)


def _keep_whole(points: np.ndarray, chains: Sequence[Sequence[int]], least: float) -> np.ndarray:
    """Points P x 3 -> P x 2, 0 where no chain of a point is whole."""
    kept = np.zeros((len(points), 2))
    for chain in map(list, chains):
        if (points[chain, 2] > least).all():
            kept[chain] = points[chain, :2]
    return kept
