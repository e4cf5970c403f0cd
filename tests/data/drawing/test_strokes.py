"""Curves and strokes, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from imagier.data.drawing.strokes import draw_stroke, split_chain, trace_curve


def trace_slowly(points: np.ndarray) -> set[tuple[int, int]]:
    """The same by an iterative fit, as the reference did it."""
    x, y = points[:, 0], points[:, 1]
    swaps = np.abs(np.diff(x)).max() < np.abs(np.diff(y)).max()
    if swaps:
        x, y = y, x
    if len(points) == 2:
        factors = curve_fit(lambda x, a, b: a * x + b, x, y)[0]
    else:
        factors = curve_fit(lambda x, a, b, c: a * x * x + b * x + c, x, y)[0]
        if abs(factors[0]) > 1:
            return set()
    ends = sorted((x[0], x[-1]))
    sampled = np.linspace(*ends, round(abs(x[-1] - x[0])))
    values = np.polyval(factors, sampled)
    pairs = zip(values.astype(int), sampled.astype(int)) if swaps else zip(sampled.astype(int), values.astype(int))
    return {(int(a), int(b)) for a, b in pairs}


@pytest.mark.filterwarnings("ignore")  # scipy cannot estimate the error of an exact fit
@pytest.mark.parametrize("count", [2, 3])
def test_a_curve_is_that_of_an_iterative_fit(count: int) -> None:
    rng = np.random.default_rng(count)
    same = total = 0
    for _ in range(60):
        along = np.sort(rng.uniform(0, 60, count))
        points = np.stack([along, 20 + 0.1 * along + rng.uniform(-5, 5, count)], axis=1)[:: rng.choice([1, -1])]
        points = points[:, ::-1] if rng.random() < 0.5 else points
        mine, slow = set(map(tuple, trace_curve(points).tolist())), trace_slowly(points)
        same, total = same + len(mine & slow), total + len(mine | slow)
    assert total > 1000
    assert same >= 0.995 * total


def test_a_line_is_sampled_once_a_pixel_and_both_ends_are_in_it() -> None:
    traced = trace_curve(np.array([[12.0, 5.0], [2.0, 5.0]]))
    assert traced.tolist() == [[x, 5] for x in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12)]  # 10 samples of 11 pixels
    assert len(trace_curve(np.array([[3.0, 3.0], [3.2, 3.1]]))) == 0
    assert len(trace_curve(np.array([[3.0, 3.0], [4e9, 3.1]]))) == 0


def test_a_parabola_that_is_bent_too_much_is_not_drawn() -> None:
    assert len(trace_curve(np.array([[0.0, 0.0], [2.0, 1.9], [4.0, 0.0]]))) == 4
    assert len(trace_curve(np.array([[0.0, 0.0], [0.5, 1.6], [2.0, 0.0]]))) == 0


def test_a_stroke_is_a_square_of_even_side_at_each_pixel_and_stays_inside() -> None:
    canvas = np.zeros((8, 9, 1), np.uint8)
    draw_stroke(canvas, np.array([[3, 4], [6, 4]]), 1, (255,))
    there = {(int(y), int(x)) for y, x in zip(*canvas[..., 0].nonzero())}
    assert there == {(y, x) for y in (3, 4) for x in (2, 3, 5, 6)}
    draw_stroke(canvas, np.array([[40, -3]]), 1, (255,))
    assert canvas[0, 8, 0] == 255


def test_colors_that_cross_mix_and_what_was_black_stays_darker() -> None:
    canvas = np.zeros((6, 8, 3), np.uint8)
    draw_stroke(canvas, np.array([[2, 3]]), 1, (200, 0, 0))
    assert canvas[2:4, 1:3].reshape(-1, 3).tolist() == [[200, 0, 0]] * 4
    draw_stroke(canvas, np.array([[2, 3], [5, 3]]), 1, (0, 101, 0))
    assert canvas[3, 2].tolist() == [100, 50, 0]
    assert canvas[3, 5].tolist() == [0, 50, 0]  # drawn together with what was there
    assert canvas[:, 6:].max() == 0


def test_discs_are_at_both_ends_only() -> None:
    canvas = np.zeros((12, 30, 1), np.uint8)
    draw_stroke(canvas, np.array([[x, 6] for x in range(5, 25)]), 1, (255,), has_discs=True)
    heights = (canvas[..., 0] > 0).sum(axis=0)
    assert heights[[5, 24]].tolist() == [3, 3] and set(heights[8:20]) == {2}


def test_a_chain_is_cut_into_pieces_that_share_their_ends() -> None:
    assert list(split_chain((1, 2, 3, 4, 5), 3)) == [(1, 2, 3), (3, 4, 5)]
    assert list(split_chain((1, 2, 3, 4), 3)) == [(1, 2, 3), (3, 4)]
    assert list(split_chain((1, 2), 3)) == [(1, 2)]
