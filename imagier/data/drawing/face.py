"""The sketch of a face from the 68 points of dlib, and how one face's points are brought to another's proportions.

Wang et al., Few-shot Video-to-Video Synthesis, 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from imagier.data.drawing.strokes import draw_stroke, split_chain, trace_curve

NUM_POINTS = 68

_UPPER = 15
"""Points that complete the contour above the eyes."""

_UPPER_LIP = tuple(range(48, 55))
"""The only part whose positional encoding the reference keeps."""

_CONTOUR, _CLOSED_CONTOUR = tuple(range(17)), (*range(17), *range(NUM_POINTS, NUM_POINTS + _UPPER), 0)
_FEATURES = (
    tuple(range(17, 22)), tuple(range(22, 27)),
    (28, 29, 30, 31), tuple(range(31, 36)), (35, 28),
    (36, 37, 38, 39), (39, 40, 41, 36), (42, 43, 44, 45), (45, 46, 47, 42),
    _UPPER_LIP, (54, 55, 56, 57, 58, 59, 48), tuple(range(60, 65)), (64, 65, 66, 67, 60),
)  # fmt: skip

NUM_CHAINS = 1 + len(_FEATURES)

OCTAVES = 10
NUM_ENCODED = 2 * OCTAVES

_FARTHEST = 255 * 3
"""A distance from which on all are alike. [pixels]"""

_CHIN = 8
_PAIRS = (
    (0, 16), (1, 15), (2, 14), (3, 13), (4, 12), (5, 11), (6, 10), (7, 9, 8), (17, 26), (18, 25), (19, 24),
    (20, 23), (21, 22), (27,), (28,), (29,), (30,), (31, 35), (32, 34), (33,), (36, 45), (37, 44), (38, 43),
    (39, 42), (40, 47), (41, 46), (48, 54), (49, 53), (50, 52), (51,), (55, 59), (56, 58), (57,), (60, 64),
    (61, 63), (62,), (65, 67), (66,),
)  # fmt: skip
"""Points that move together: left and right of the same feature."""


def draw_face(
    points: np.ndarray,
    size: tuple[int, int],
    *,
    width: int,
    add_upper_face: bool = False,
    has_distances: bool = False,
    has_positional_encoding: bool = False,
) -> np.ndarray:
    """68 points x, y -> a sketch, H x W x 1, 0 or 1, float32; with distances H x W x 15.

    Positional encoding adds 20 channels. size: height and width. width: of the strokes, in half pixels. add_upper_face:
    the contour of the face is mirrored above it. has_distances: how far each of the 14 curves is away, along rows and
    columns, 1 for 765 px or more. has_positional_encoding: of the distance from the upper lip,
    which needs distances, sine and cosine at 10 frequencies, each twice the one before.
    """
    chains = (_CONTOUR, *_FEATURES)
    if add_upper_face:
        points = np.concatenate([points[:, :2], _mirror_contour(points)])
        chains = (_CLOSED_CONTOUR, *_FEATURES)
    sketch, layers = np.zeros((*size, 1), np.uint8), list[np.ndarray]()
    for chain in chains:
        alone = np.zeros_like(sketch)
        for piece in split_chain(chain, 3):
            draw_stroke(alone, trace_curve(points[list(piece), :2]), width, (255,))
        sketch |= alone
        if has_distances:
            away = cv2.distanceTransform(255 - alone, cv2.DIST_L1, cv2.DIST_MASK_3)
            layers.append(away.clip(max=_FARTHEST)[..., None] / _FARTHEST)
    if has_positional_encoding:
        layers.append(_encode(layers[chains.index(_UPPER_LIP)][..., 0]))
    return np.concatenate([sketch / 255, *layers], axis=2, dtype=np.float32)


def _encode(shares: np.ndarray) -> np.ndarray:
    """H x W, from 0 to 1 -> sine and cosine of each octave, one after the other, H x W x 20."""
    angles = np.pi * (2 * shares[..., None] - 1) * 2.0 ** np.arange(OCTAVES)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(*shares.shape, NUM_ENCODED)


def _mirror_contour(points: np.ndarray) -> np.ndarray:
    """15 points above the face: those of its contour but the first and the last, from right to left, 2/3 as high."""
    contour = points[:17, :2].astype(np.int64)
    base = (contour[0, 1] + contour[16, 1]) / 2
    upper = contour[15:0:-1].astype(np.float64)
    upper[:, 1] = np.trunc(base + np.floor((base - upper[:, 1]) * 2 / 3))
    return upper


def fit_proportions(points: np.ndarray, reference: np.ndarray, *, momentum: float, window: int) -> np.ndarray:
    """The points of a video's face, T x 68 x 2, with the proportions of another face, 68 x 2 -> T x 68 x 2.

    Features keep their movement; how far they are from the chin, and how wide, becomes that of the reference. Scales
    follow the frames slowly. momentum: weight of the past in them. window: each coordinate is the median over so many
    frames around, where there are as many.
    """
    growth = float(np.ptp(points[0, :, 0]) / max(np.ptp(reference[:, 0]), 1e-3))
    wanted = [_measure(reference, part) for part in map(list, _PAIRS)]
    scales: np.ndarray | None = None
    fitted = []
    for frame in points:
        found = np.array([_measure(frame, part) for part in map(list, _PAIRS)])
        now = np.array(wanted) / found * growth
        scales = now if scales is None else momentum * scales + (1 - momentum) * now
        fitted.append(_rescale(frame, scales))
    return _smooth(np.stack(fitted), window)


def _measure(points: np.ndarray, part: Sequence[int]) -> tuple[float, float]:
    """How wide a part is, and how far from the chin."""
    middle = points[part].mean(axis=0)
    spread = np.linalg.norm(points[part] - middle, axis=1).mean()
    return float(spread) + 1e-3, float(np.linalg.norm(middle - points[_CHIN])) + 1e-3


def _rescale(points: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Points 68 x 2 with each part as much wider, and farther from the chin, as its scales say."""
    chin, scaled = points[_CHIN], points.copy()
    for part, (spread, distance) in zip(map(list, _PAIRS), scales):
        if (points[part, 0] == 0).any():
            continue  # the detector has missed one
        middle = points[part].mean(axis=0)
        scaled[part] = (points[part] - middle) * spread + (middle - chin) * distance + chin
    return scaled


def _smooth(points: np.ndarray, window: int) -> np.ndarray:
    reach = window // 2
    smoothed = points.copy()
    for t in range(reach, len(points) - reach):
        smoothed[t] = np.median(points[t - reach : t + reach + 1], axis=0)
    return smoothed
