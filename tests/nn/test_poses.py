"""Where people, faces and hands are in label maps, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.poses import (
    DENSEPOSE,
    OPENPOSE,
    Box,
    crop,
    filter_pose_label,
    find_body_parts,
    find_face,
    find_faces,
    find_foreground,
    find_hands,
    has_densepose,
    normalize_densepose,
)

STROKES = {OPENPOSE: 27}


def label_of(*rectangles: tuple[int, int, int, int, int], size: tuple[int, int] = (128, 96)) -> Tensor:
    """One sample of 27 channels, 0 but for some (channel, first row, last row, first column, last column)."""
    label = torch.zeros(1, 27, *size)
    for channel, top, bottom, left, right in rectangles:
        label[:, channel, top : bottom + 1, left : right + 1] = 1
    return label


def test_a_face_of_strokes_is_two_and_a_half_of_its_width_and_higher_than_its_middle() -> None:
    found = find_faces(label_of((-1, 20, 45, 40, 56)), STROKES)
    # int(16 * 2.5) = 40; rows (3 * 20 + 2 * 45) // 5 = 30, columns (40 + 56) // 2 = 48
    assert found.boxes == [Box(sample=0, top=10, left=28, side=40)]
    assert found.side == 128 // 32 * 8


def test_a_face_at_the_border_is_looked_at_inside_and_a_small_one_from_further_away() -> None:
    (box,) = find_faces(label_of((-1, 0, 4, 90, 95)), STROKES).boxes
    assert box == Box(0, top=0, left=95 - 16 - 16, side=32)


def test_without_a_face_it_is_looked_for_where_faces_are() -> None:
    assert find_faces(label_of(), STROKES).boxes == [Box(0, top=32 - 16, left=48 - 16, side=32)]


def test_a_face_of_densepose_is_its_part_of_the_body() -> None:
    label = torch.full((1, 3, 128, 96), -1.0)
    label[:, 2, 20:61, 40:57] = 23 / 24 * 2 - 1
    (box,) = find_faces(label, {DENSEPOSE: 3}).boxes
    assert box == Box(0, top=40 - 25, left=48 - 25, side=50)  # int(40 * 1.25), around the middle


def test_hands_of_all_samples_come_one_after_the_other_and_those_unseen_are_left_out() -> None:
    both, one, none = label_of((-3, 60, 70, 10, 20), (-2, 60, 70, 80, 95)), label_of((-2, 0, 3, 0, 3)), label_of()
    found = find_hands(torch.cat([both, none, one]), STROKES)
    assert found.side == 16
    assert found.boxes == [Box(0, 57, 7, 16), Box(0, 57, 95 - 8 - 8, 16), Box(2, 0, 0, 16)]
    assert find_hands(none, STROKES).boxes == []


def test_crops_are_the_parts_of_the_images_in_one_size() -> None:
    images = torch.rand(1, 3, 128, 96)
    found = find_hands(label_of((-3, 60, 70, 10, 20)), STROKES)
    parts = crop(images, found)
    assert parts is not None and torch.equal(parts, images[:, :, 57:73, 7:23])
    ramp = torch.arange(96.0).expand(1, 3, 128, 96)
    face = crop(ramp, find_faces(label_of((-1, 20, 45, 40, 56)), STROKES))
    assert face is not None and face.shape == (1, 3, 32, 32)
    assert torch.allclose(face[0, 0, 0], torch.linspace(28, 67, 32), atol=1e-4)  # corners stay corners
    assert crop(images, find_hands(label_of(), STROKES)) is None


def test_a_label_without_faces_or_hands_is_the_users_mistake() -> None:
    with pytest.raises(UserError) as caught:
        find_faces(torch.zeros(1, 5, 64, 64), {"seg_maps": 5})
    assert caught.value.code == "no-crops"
    with pytest.raises(UserError) as caught:
        find_hands(torch.zeros(1, 6, 64, 64), {OPENPOSE: 3, "seg_maps": 3})
    assert caught.value.code == "no-crops"
    with pytest.raises(UserError) as caught:
        find_hands(label_of(size=(32, 32)), STROKES)
    assert caught.value.code == "image-too-small"


BOTH = {DENSEPOSE: 3, OPENPOSE: 27}


@pytest.mark.parametrize(
    ("lengths", "pose_type", "changes", "expected"),
    [
        (BOTH, "both", {}, True),
        (BOTH, "open", {"has_foreground": True}, True),
        (BOTH, None, {}, False),
        (STROKES, "both", {"has_foreground": True}, False),
        (STROKES, "open", {}, "no-densepose"),
        (STROKES, "both", {"should_remove_face": True}, "no-densepose"),
        ({"seg_maps": 2}, None, {"has_foreground": True}, "no-densepose"),
        (BOTH, None, {"has_foreground": True}, "needs-key"),
        ({OPENPOSE: 27, DENSEPOSE: 3}, "both", {}, "densepose-not-first"),
        ({DENSEPOSE: 1}, "both", {}, "densepose-not-first"),
        (BOTH, "both", {"normalized": [DENSEPOSE]}, "densepose-normalized"),
        (BOTH, "both", {"normalized": [OPENPOSE]}, True),
    ],
)
def test_densepose_comes_first_in_the_label_and_is_there_where_it_is_read(
    lengths: dict[str, int], pose_type: Any, changes: dict[str, Any], expected: bool | str
) -> None:
    options: dict[str, Any] = {"normalized": (), "should_remove_face": False, "has_foreground": False} | changes
    try:
        found: bool | str = has_densepose(lengths, pose_type, **options)
    except UserError as error:
        found = error.code
    assert found == expected


def test_densepose_comes_to_to_minus_one_to_one_and_parts_can_be_dropped() -> None:
    label = torch.zeros(1, 1, 4, 1, 3)
    label[0, 0, :, 0] = torch.tensor([[0.0, 0.4, 0.6], [0.0, 0.5, 0.7], [0.0, 12 / 255, 24 / 255], [1.0, 0.0, 1.0]])
    assert torch.allclose(
        normalize_densepose(label)[0, 0, :, 0],
        torch.tensor([[-1.0, -0.2, 0.2], [-1.0, 0.0, 0.4], [-1.0, 0.0, 1.0], [1.0, -1.0, 1.0]]),
        atol=1e-6,
    )
    dropped = torch.zeros(24, dtype=torch.bool)
    dropped[11] = True  # part 12
    without = normalize_densepose(label, dropped)[0, 0, :, 0]
    assert without[:3, 1].tolist() == [-1, -1, -1]
    assert torch.allclose(without[:, 2], normalize_densepose(label)[0, 0, :, 0, 2])


def test_the_generator_sees_no_densepose_or_none_of_the_face() -> None:
    part = torch.tensor([0.0, 5.0, 23.0, 24.0])
    dense = torch.stack([torch.full((4,), 0.3), torch.full((4,), 0.6), part / 24 * 2 - 1])
    label = torch.cat([dense, torch.full((2, 4), 0.9)])[None, None, :, None]  # N x T x L x H x W
    assert torch.equal(filter_pose_label(label, None, should_remove_face=True), label)
    assert torch.equal(filter_pose_label(label, "open", should_remove_face=False), label[:, :, 3:])
    found = filter_pose_label(label, "both", should_remove_face=True)[0, 0, :, 0]
    assert torch.equal(found[:, :2], label[0, 0, :, 0, :2])
    assert (found[:3, 2:] == -1).all() and (found[3:] == 0.9).all()


def test_the_foreground_is_where_people_are_and_7_px_around() -> None:
    label = torch.full((1, 3, 40, 40), -1.0)
    label[0, 2, 20, 20] = -0.5
    expected = torch.zeros(40, 40)
    expected[13:28, 13:28] = 1
    assert torch.equal(find_foreground(label)[0, 0], expected)


def test_the_24_parts_of_the_body_are_nine_with_the_background() -> None:
    label = torch.zeros(1, 4, 1, 25)
    label[0, 2, 0] = torch.arange(25) / 24 * 2 - 1
    (parts,) = find_body_parts(label)
    assert parts.sum(dim=0).tolist() == [[1.0] * 25]
    assert parts.argmax(dim=0).tolist() == [[0, 1, 1, 2, 2, 3, 3, *[4] * 4, *[5] * 4, *[6] * 4, *[7] * 4, 8, 8]]
    assert torch.equal(find_face(label)[0, 0], parts[8])
    label[0, 2] = 0.5 / 24 * 2 - 1  # between two parts
    assert not find_body_parts(label).any()
