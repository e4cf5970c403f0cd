"""People of OpenPose: files, and what augmentations make of them."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from people import make_person, openpose_json
from small_data import load

from imagier.data.augmentation.augment import Augmenter
from imagier.data.codec import InputType, Stored
from imagier.data.codecs.openpose import Codec
from imagier.data.drawing.pose import draw_pose
from imagier.errors import UserError

PARTS = Codec(InputType(name="poses-openpose", ext="json", num_channels=27))


def test_rows_are_body_face_and_hands_as_in_the_file() -> None:
    person = make_person()
    np.testing.assert_allclose(load(PARTS, openpose_json(person), "json", "a"), person)
    body = {"people": [{"pose_keypoints_2d": person[:25].ravel().tolist(), "face_keypoints_2d": []}]}
    alone = load(PARTS, json.dumps(body).encode(), "json", "a")
    np.testing.assert_allclose(alone[:25], person[:25])
    assert alone.shape == (137, 3) and alone[25:].max() == 0


def test_of_several_people_the_first_counts_or_the_tallest_that_is_seen() -> None:
    small, large = make_person(0.5), make_person()
    unseen = make_person(3.0, confidence=0.0)
    data = openpose_json(small, unseen, large)
    largest = Codec(InputType(name="p", ext="json", num_channels=3), largest_only=True)
    np.testing.assert_allclose(load(PARTS, data, "json", "a"), small)
    np.testing.assert_allclose(load(largest, data, "json", "a"), large)
    for codec in (PARTS, largest):
        assert load(codec, openpose_json(), "json", "a").tolist() == np.zeros((137, 3)).tolist()
    assert load(largest, openpose_json(unseen), "json", "a")[:, 2].max() == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[]", "damaged"),
        (b"{", "damaged"),
        (b'{"people": [{}]}', "damaged"),
        (b'{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "damaged"),
        (b'{"people": 3}', "damaged"),
        (b'{"people": [3]}', "damaged"),
        (json.dumps({"people": [{"pose_keypoints_2d": [1e39] * 75}]}).encode(), "not-finite"),
        (openpose_json(make_person()).replace(b"128.0", b"NaN"), "not-finite"),
    ],
)
def test_what_is_no_such_file_is_told(data: bytes, code: str) -> None:
    with pytest.raises(UserError) as caught:
        load(PARTS, data, "json", "bad.json")
    assert (caught.value.where, caught.value.code) == ("bad.json", code)


def test_files_without_a_person_are_remarked_on() -> None:
    assert [remark.code for remark in PARTS.examine(np.zeros((137, 3)))] == ["nobody"]
    assert PARTS.examine(make_person()) == ()


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        Codec(InputType(name="p", ext="json", num_channels=4))
    assert (caught.value.where, caught.value.code) == ("p", "wrong-channels")


def test_strokes_are_drawn_where_the_augmented_image_shows_the_person() -> None:
    person = make_person()
    drawn = Augmenter({"resize_h_w": "128, 128", "center_crop_h_w": "96, 64"}).draw((256, 256), random.Random(0))
    strokes = PARTS.augment(Stored(person, (256, 256)), drawn)
    moved = person.copy()
    moved[:, :2] = (person[:, :2] + 0.5) / 2 - 0.5 - (32, 16)  # centers of pixels are whole numbers
    np.testing.assert_array_equal(strokes, draw_pose(moved, (96, 64), channels=27))
    seen = PARTS.expand(torch.from_numpy(strokes)[None])
    assert seen.shape == (1, 27, 96, 64) and seen.unique().tolist() == [0, 1]


@pytest.mark.parametrize("far", [2e4, 1e30])
def test_a_point_that_is_far_off_widens_no_stroke_without_end(far: float) -> None:
    person = make_person()
    person[4, 1] = far
    strokes = draw_pose(person, (256, 256), channels=27)
    assert 0 < np.count_nonzero(strokes) < 0.2 * strokes.size


def test_strokes_are_dropped_in_training_alone() -> None:
    codec = Codec(InputType(name="p", ext="json", num_channels=27), random_drop_prob=0.5)
    stored = Stored(make_person(), (256, 256))
    augmenter = Augmenter({"resize_h_w": "256, 256"})
    whole = codec.augment(stored, augmenter.draw((256, 256), random.Random(0)))
    lit = [
        codec.augment(stored, augmenter.draw((256, 256), random.Random(seed), is_training=True))[..., :24].any((0, 1))
        for seed in range(20)
    ]
    assert whole[..., :24].any((0, 1)).all()
    assert 0.35 < np.mean(lit) < 0.65


def test_people_look_at_strokes_on_black_and_at_the_stored_person_on_the_image() -> None:
    strokes = draw_pose(make_person(), (256, 256), channels=27)
    shown = PARTS.to_rgb(strokes)
    np.testing.assert_array_equal(shown.any(axis=2), strokes.any(axis=2))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20
    canvas = np.full((256, 256, 3), 9, np.uint8)
    over = PARTS.to_rgb(make_person(), canvas)
    assert 0.01 < (over != 9).any(axis=2).mean() < 0.2
