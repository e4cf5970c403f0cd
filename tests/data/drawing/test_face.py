"""The sketch of a face, and its proportions."""

from __future__ import annotations

import numpy as np
from people import make_face

from imagier.data.drawing.face import draw_face, fit_proportions

SIZE = (96, 80)
FACE = make_face(40, 50, 25)


def test_a_sketch_lies_on_its_points() -> None:
    sketch = draw_face(FACE, SIZE, width=1)
    assert sketch.shape == (*SIZE, 1) and sketch.dtype == np.float32 and set(np.unique(sketch)) == {0, 1}
    x, y = FACE.astype(int).T
    near = [sketch[b - 2 : b + 3, a - 2 : a + 3].max() for number, (a, b) in enumerate(zip(x, y)) if number != 27]
    assert min(near) == 1
    assert sketch[:20].max() == 0


def test_the_upper_face_is_the_contour_mirrored_two_thirds_as_high() -> None:
    plain, whole = (draw_face(FACE, SIZE, width=1, add_upper_face=each)[..., 0] for each in (False, True))
    assert (whole >= plain).all()
    added = np.argwhere((whole > 0) & (plain == 0))
    chin = FACE[8, 1] - FACE[0, 1]
    assert abs((50 - added[:, 0].min()) - 2 / 3 * chin) < 3
    assert added[:, 0].max() <= 50


def test_distances_are_those_to_each_curve_along_rows_and_columns() -> None:
    drawn = draw_face(FACE, SIZE, width=1, has_distances=True)
    assert drawn.shape == (*SIZE, 15)
    np.testing.assert_array_equal(drawn[..., :1], draw_face(FACE, SIZE, width=1))
    np.testing.assert_array_equal((drawn[..., 1:] == 0).any(axis=2), drawn[..., 0] > 0)
    brow = np.argwhere(drawn[..., 2] == 0)
    for y, x in ((0, 0), (60, 70), (33, 30)):
        nearest = np.abs(brow - (y, x)).sum(axis=1).min()
        assert abs(drawn[y, x, 2] - nearest / 3 / 255) < 1e-6


def test_the_positional_encoding_is_ten_octaves_of_the_distance_from_the_upper_lip() -> None:
    drawn = draw_face(FACE, SIZE, width=1, has_distances=True, has_positional_encoding=True)
    assert drawn.shape == (*SIZE, 35)
    np.testing.assert_array_equal(drawn[..., :15], draw_face(FACE, SIZE, width=1, has_distances=True))
    lip = drawn[..., 11] * 255  # the eleventh curve: contour, two brows, three of the nose, four of the eyes, the lip
    for octave in range(10):
        angle = np.pi * 2**octave * (lip - 127.5) / 127.5
        np.testing.assert_allclose(drawn[..., 15 + 2 * octave], np.sin(angle), atol=2e-3)
        np.testing.assert_allclose(drawn[..., 16 + 2 * octave], np.cos(angle), atol=2e-3)


def test_a_face_keeps_itself_as_its_own_reference() -> None:
    video = np.stack([FACE + np.array((t, 2 * t)) for t in range(4)])
    np.testing.assert_allclose(fit_proportions(video, 2 * FACE, momentum=0.9, window=5), video, atol=0.05)


def test_a_face_gets_the_proportions_of_another_and_keeps_its_size_and_place() -> None:
    chin = FACE[8]
    narrow = chin + (FACE - chin) * (0.7, 1.0)
    fitted = fit_proportions(narrow[None], 3 * FACE, momentum=0.9, window=5)[0]
    ratio = [np.ptp(points[:, 1]) / np.ptp(points[:, 0]) for points in (narrow, FACE, fitted)]
    assert ratio[0] > 1.3 * ratio[1]
    assert abs(ratio[2] - ratio[1]) < 0.35 * abs(ratio[0] - ratio[1])
    np.testing.assert_allclose(fitted[8], chin, atol=1.5)


def test_scales_follow_slowly_and_a_jump_of_one_frame_is_smoothed_away() -> None:
    wide = FACE[8] + (FACE - FACE[8]) * (1.3, 1.0)
    follow = fit_proportions(np.stack([FACE, wide]), FACE, momentum=1.0 - 1e-9, window=5)
    np.testing.assert_allclose(follow[1], wide, atol=0.1)  # the scales are those of the first frame
    at_once = fit_proportions(np.stack([FACE, wide]), FACE, momentum=0.0, window=5)
    assert np.ptp(at_once[1, :, 0]) < np.ptp(wide[:, 0]) - 5
    still = np.repeat(FACE[None], 7, axis=0)
    still[3, 60] += 9
    smoothed = fit_proportions(still, FACE, momentum=0.9, window=5)
    assert np.abs(smoothed[3, 60] - smoothed[2, 60]).max() < 1
