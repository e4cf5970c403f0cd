"""Faces of dlib: files, and what augmentations make of them."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from people import make_face
from small_data import load

from imagier.data.augmentation.augment import Augmenter
from imagier.data.augmentation.warp import Part
from imagier.data.codec import InputType, Stored
from imagier.data.codecs.face_landmarks import Codec
from imagier.data.drawing.face import draw_face
from imagier.errors import UserError

SKETCH = Codec(InputType(name="landmarks-dlib68", ext="json", num_channels=1))
FACE = make_face(100, 90, 50)


def test_files_hold_68_points() -> None:
    np.testing.assert_allclose(load(SKETCH, json.dumps(FACE.tolist()).encode(), "json", "a"), FACE)
    for data in (json.dumps(FACE[:5].tolist()).encode(), b"{", b"3"):
        with pytest.raises(UserError) as caught:
            load(SKETCH, data, "json", "bad.json")
        assert (caught.value.where, caught.value.code) == ("bad.json", "damaged")


@pytest.mark.parametrize(("channels", "has_distances"), [(15, False), (1, True), (None, False)])
def test_channels_must_be_those_of_the_sketch(channels: int | None, has_distances: bool) -> None:
    with pytest.raises(UserError) as caught:
        Codec(InputType(name="f", ext="json", num_channels=channels), add_distance_transform=has_distances)
    assert caught.value.code == "wrong-channels"


def test_positional_encoding_needs_distances_and_35_channels() -> None:
    sketch = Codec(
        InputType(name="f", ext="json", num_channels=35), add_distance_transform=True, add_positional_encode=True
    )
    drawn = Augmenter({"resize_h_w": "100, 110"}).draw((200, 220), random.Random(0))
    assert sketch.augment(Stored(FACE, (200, 220)), drawn).shape == (100, 110, 35)
    with pytest.raises(UserError) as caught:
        Codec(InputType(name="f", ext="json", num_channels=21), add_positional_encode=True)
    assert caught.value.code == "no-effect"


def test_the_sketch_is_drawn_where_the_augmented_image_shows_the_face() -> None:
    drawn = Augmenter({"resize_h_w": "100, 110", "center_crop_h_w": "80, 90"}).draw((200, 220), random.Random(0))
    sketch = SKETCH.augment(Stored(FACE, (200, 220)), drawn)
    moved = (FACE + 0.5) / 2 - 0.5 - (10, 10)
    np.testing.assert_array_equal(sketch, draw_face(moved, (80, 90), width=1))
    assert SKETCH.expand(torch.from_numpy(sketch)[None]).shape == (1, 1, 80, 90)


def test_a_part_of_a_sketch_is_resized_with_gray_edges() -> None:
    sketch = draw_face(FACE, (200, 220), width=1)
    part = Part(40, 140, 50, 150)
    cut = SKETCH.crop(sketch, part, (60, 60))
    plane = torch.from_numpy(sketch[40:140, 50:150, 0])[None, None]
    expected = torch.nn.functional.interpolate(plane, size=(60, 60), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(cut[..., 0], expected[0, 0], atol=1e-5)
    assert 0 < np.median(cut[cut > 0]) < 1
