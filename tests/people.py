"""Points of people and faces, as OpenPose and dlib would find them, for tests."""

from __future__ import annotations

import json

import numpy as np

BODY = {
    0: (128, 40), 1: (128, 80), 2: (95, 80), 3: (80, 120), 4: (75, 160), 5: (160, 80), 6: (180, 120), 7: (185, 160),
    8: (128, 150), 9: (110, 150), 10: (105, 200), 11: (105, 245), 12: (146, 150), 13: (150, 200), 14: (152, 245),
    15: (122, 34), 16: (134, 34), 17: (114, 38), 18: (142, 38), 19: (160, 250), 20: (164, 248), 21: (150, 252),
    22: (98, 250), 23: (94, 248), 24: (108, 252),
}  # fmt: skip
"""The 25 points of a body that stands in an image of 256 x 256."""

COUNTS = {"pose": 25, "face": 70, "hand_left": 21, "hand_right": 21}


def make_face(x: float, y: float, side: float) -> np.ndarray:
    """The 68 points of a face around a place, 68 x 2; `side` is half of its width."""

    def curve(count: int, left: float, right: float, at: float, height: float) -> np.ndarray:
        bend = np.sin(np.linspace(0, np.pi, count))
        return np.stack([x + side * np.linspace(left, right, count), y + side * (at - height * bend)], axis=1)

    def ring(count: int, across: float, at: float, width: float, height: float) -> np.ndarray:
        angle = np.linspace(np.pi, -np.pi, count + 1)[:count]
        return np.stack([x + side * (across + width * np.cos(angle)), y + side * (at - height * np.sin(angle))], axis=1)

    turn = np.linspace(np.pi, 0, 17)
    return np.concatenate(
        [
            np.stack([x + side * np.cos(turn), y + 1.2 * side * np.sin(turn)], axis=1),
            curve(5, -0.8, -0.2, -0.35, 0.1),
            curve(5, 0.2, 0.8, -0.35, 0.1),
            np.stack([np.full(4, x), y + side * np.linspace(-0.2, 0.3, 4)], axis=1),
            curve(5, -0.2, 0.2, 0.4, -0.05),
            ring(6, -0.5, -0.1, 0.2, 0.1),
            ring(6, 0.5, -0.1, 0.2, 0.1),
            ring(12, 0, 0.7, 0.4, 0.15),
            ring(8, 0, 0.7, 0.3, 0.06),
        ]
    )


def make_person(scale: float = 1.0, confidence: float = 0.9, *, has_hands: bool = True) -> np.ndarray:
    """The 137 points of a person, 137 x 3, in an image of 256 * scale px; rows as in OpenPose's files."""
    points = np.zeros((137, 3))
    points[list(BODY), :2] = list(BODY.values())
    points[25:93, :2] = make_face(128, 42, 14)
    for start, (x, y) in ((95, (75, 165)), (116, (185, 165))):
        points[start, :2] = x, y
        for finger in range(5):
            for joint in range(4):
                at = x + (finger - 2) * 4 * (1 + 0.3 * joint), y + 5 + 5 * joint
                points[start + 1 + 4 * finger + joint, :2] = at
    points[:, :2] *= scale
    points[:, 2] = confidence
    points[93:95] = 0
    if not has_hands:
        points[95:] = 0
    return points


def openpose_json(*people: np.ndarray) -> bytes:
    """A file of OpenPose."""
    entries = []
    for points in people:
        parts = np.split(points, np.cumsum(list(COUNTS.values()))[:-1])
        entries.append({f"{name}_keypoints_2d": part.ravel().tolist() for name, part in zip(COUNTS, parts)})
    return json.dumps({"version": 1.3, "people": entries}).encode()
