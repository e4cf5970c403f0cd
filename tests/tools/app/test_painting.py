"""What people paint becomes what the data set stores: nothing is lost, and no class appears that nobody painted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from imagier.data.codecs.image import lay_on
from imagier.nn.colorize import palette
from imagier.tools.app.painting import SIDE, Board, ClassColors, find_blank, to_grays

NOTHING = 255


def random_ids(num_classes: int, height: int, width: int) -> np.ndarray:
    ids = np.random.default_rng(0).integers(0, num_classes + 1, (height, width))
    return np.where(ids == num_classes, NOTHING, ids).astype(np.uint8)


@pytest.mark.parametrize("num_classes", [2, 20, 35, 183, 255])
@pytest.mark.parametrize("size", [(7, 5), (40, 64), (600, 520)])
def test_a_map_that_is_shown_and_not_painted_on_stays_as_it_is(num_classes: int, size: tuple[int, int]) -> None:
    """35 classes: Cityscapes gives one color to several."""
    classes, board, ids = ClassColors(num_classes), Board(size), random_ids(num_classes, *size)
    shown = board.enlarge(classes.to_colors(ids))
    assert max(shown.shape) >= SIDE
    assert np.array_equal(board.reduce_ids(classes.to_ids(shown, shown)), ids)


def test_classes_above_255_are_16_bits_and_stay_as_they_are() -> None:
    ids = np.arange(300, dtype=np.uint16).repeat(2).reshape(1, -1).repeat(2, axis=0)
    found = ClassColors(300).to_ids(ClassColors(300).to_colors(ids))
    assert found.dtype == np.uint16 and np.array_equal(found, ids)


def test_the_mixed_colors_of_a_smooth_edge_become_no_third_class() -> None:
    """Between class 0 (black) and class 1 (128, 0, 0) lies class 8 (64, 0, 0)."""
    num_classes, center, radius = 21, (200 * 16 + 5, 190 * 16 + 9), 90 * 16 + 3
    classes = ClassColors(num_classes)
    before = np.zeros((400, 400, 3), np.uint8) + classes.colors[0]
    painted = cv2.circle(before.copy(), center, radius, classes.colors[1].tolist(), -1, cv2.LINE_AA, shift=4)
    distances = np.abs(painted[:, :, None].astype(int) - palette(num_classes).numpy()).sum(axis=3)
    assert set(np.unique(distances.argmin(axis=2))) > {0, 1}  # what the nearest color alone would give
    ids = classes.to_ids(painted, before)
    assert set(np.unique(ids)) == {0, 1}
    rows, columns = np.mgrid[:400, :400]
    distance = np.hypot(columns - center[0] / 16, rows - center[1] / 16) - radius / 16
    assert (ids[distance < -1.5] == 1).all() and (ids[distance > 1.5] == 0).all()


def test_lines_of_one_pixel_in_a_map_survive_a_stroke_elsewhere() -> None:
    classes, ids = ClassColors(5), np.zeros((520, 520), np.uint8)
    ids[::7] = 3
    before = classes.to_colors(ids)
    painted = before.copy()
    painted[100:140, 100:140] = classes.colors[2]
    expected = ids.copy()
    expected[100:140, 100:140] = 2
    assert np.array_equal(classes.to_ids(painted, before), expected)


def test_a_color_that_a_browser_has_changed_a_little_is_still_that_of_its_class() -> None:
    ids = random_ids(35, 9, 9).repeat(4, axis=0).repeat(4, axis=1)
    classes = ClassColors(35)
    noise = np.random.default_rng(1).integers(-3, 4, (*ids.shape, 3))
    painted = (classes.to_colors(ids).astype(int) + noise).clip(0, 255).astype(np.uint8)
    assert np.array_equal(classes.to_ids(painted), ids)


def test_a_gray_drawing_stays_as_it_is_and_strokes_are_averaged() -> None:
    grays, board = np.random.default_rng(0).integers(0, 256, (12, 10)).astype(np.uint8), Board((12, 10))
    shown = board.enlarge(np.repeat(grays[..., None], 3, axis=2))
    assert np.array_equal(board.reduce_grays(to_grays(shown)), grays)
    half = shown.copy()
    half[: board.scale, : board.scale // 2] = 0
    kept = round(int(grays[0, 0]) * (board.scale - board.scale // 2) / board.scale)
    assert abs(int(board.reduce_grays(to_grays(half))[0, 0]) - kept) <= 1


def test_a_drawing_of_another_size_is_taken_as_it_is() -> None:
    other = np.zeros((100, 300), np.uint8)
    assert Board((12, 10)).reduce_grays(other).shape == Board((12, 10)).reduce_ids(other).shape == (100, 300)


def test_what_is_see_through_shows_the_paper() -> None:
    painted = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    laid = lay_on(np.array([200, 100, 50]), painted)
    assert laid.tolist() == [[[10, 20, 30], [200, 100, 50], [160, 80, 40]]]
    assert find_blank(np.array([[7, 7, 9], [7, 0, 255]], np.uint8)) == 7
