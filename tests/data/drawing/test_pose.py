"""The strokes of a person."""

from __future__ import annotations

import numpy as np
from people import BODY, make_person

from imagier.data.drawing.pose import draw_pose

SIZE = (256, 256)


def count(canvas: np.ndarray) -> list[int]:
    """Lit pixels of each channel."""
    return (canvas > 0).sum(axis=(0, 1)).tolist()


def test_each_stroke_of_the_body_has_its_channel_and_hands_and_face_have_one_each() -> None:
    person = draw_pose(make_person(), SIZE, channels=27)
    assert person.shape == (*SIZE, 27) and set(np.unique(person)) == {0, 255}
    assert all(number > 0 for number in count(person))
    upper_arm = np.argwhere(person[..., 7])  # the right one: from 2 to 3
    assert upper_arm.min(axis=0).tolist() == [BODY[2][1] - 1, BODY[3][0] - 1]
    assert person[..., 24][:, 128:].max() == 0 and person[..., 25][:, :128].max() == 0
    assert np.argwhere(person[..., 26])[:, 0].max() < BODY[1][1]


def test_strokes_have_the_colors_of_the_reference() -> None:
    person = draw_pose(make_person(has_hands=False), SIZE, channels=3)
    places = [person[115, 120:136], person[100, 80:96], person[80, 140:150]]
    for pixels, color in zip(places, [(153, 0, 0), (153, 102, 0), (102, 153, 0)]):
        there = {tuple(pixel) for pixel in pixels.tolist() if any(pixel)}
        half = tuple(part // 2 for part in color)
        thrice = tuple((part + part // 2) // 2 for part in color)  # mixed with black, then with itself
        assert there and there <= {color, half, thrice}
    assert person[120, 40].tolist() == [0, 0, 0]


def test_basic_points_are_those_of_the_body_without_feet() -> None:
    basic = count(draw_pose(make_person(), SIZE, channels=27, basic_points_only=True))
    assert [number > 0 for number in basic] == [True] * 18 + [False] * 9
    faceless = count(draw_pose(make_person(), SIZE, channels=27, remove_face=True))
    assert [number > 0 for number in faceless] == [True] * 26 + [False]


def test_what_was_not_found_is_not_drawn() -> None:
    points = make_person()
    points[3, 2] = 0.01  # the right elbow
    points[95 + 2, 2] = 0.0  # a joint of the left thumb
    points[25 + 50, 2] = 0.05  # the upper lip
    whole, part = (count(draw_pose(each, SIZE, channels=27)) for each in (make_person(), points))
    assert part[7] == part[8] == 0 and all(number > 0 for number in part[:7] + part[9:])
    assert part[24] < whole[24] and part[26] < whole[26]
    assert draw_pose(np.zeros((137, 3)), SIZE, channels=27).max() == 0


def test_strokes_of_tall_people_are_wider() -> None:
    tall = draw_pose(make_person(2.0), (512, 512), channels=27)[..., 5]
    small = draw_pose(make_person(), SIZE, channels=27)[..., 5]
    assert (tall[230] > 0).sum() == 4 and (small[115] > 0).sum() == 2  # heights 504 and 252: a 150th on either side


def test_every_stroke_is_asked_about_once_and_may_be_dropped() -> None:
    asked: list[int] = []

    def drops() -> bool:
        asked.append(len(asked))
        return len(asked) == 6  # from 1 to 8

    drawn = count(draw_pose(make_person(), SIZE, channels=27, drops=drops))
    assert drawn[5] == 0 and all(drawn[:5]) and all(drawn[6:])
    assert len(asked) == 24 + 2 * 20 + 16 + 4 + 4 + 3 + 4 + 1 + 3 + 3 + 3 + 3 + 6 + 6
