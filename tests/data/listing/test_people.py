"""Which part of a clip shows a face or a person, against the formulas of the reference, written out again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from people import make_face

from imagier.data.augmentation.augment import Augmenter
from imagier.data.augmentation.warp import Part
from imagier.data.codec import Stored
from imagier.data.listing.clips import Clip, Frames
from imagier.data.listing.people import DENSEPOSE, LANDMARKS, OPENPOSE, PEOPLE, find_faces, find_people, remove_others

SIZE = (120, 160)


def make_frames(arrays: list[dict[str, Any]], points: np.ndarray | None = None) -> Frames:
    drawn = Augmenter({"resize_h_w": f"{SIZE[0]}, {SIZE[1]}"}).draw(SIZE, random.Random(0))
    moment = {} if points is None else {LANDMARKS: Stored(points, SIZE)}
    return Frames(Clip(0, [0]), [moment], {"images": SIZE}, drawn, arrays)


def face_box(points: np.ndarray, offset: tuple[float, float], scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """fs_vid2vid.md, section 6: top, bottom, left, right."""
    height, width = SIZE
    x0, x1, y0, y1 = (int(v) for v in (points[:, 0].min(), points[:, 0].max(), points[:, 1].min(), points[:, 1].max()))
    xc, yc, w, h = (x0 + x1) // 2, (y0 + y1) // 2, float(x1 - x0), float(x1 - x0)
    w, h = w * scale[0], h * scale[1]
    xc, yc = xc + int(offset[0] * w), yc + int(offset[1] * h)
    xc, yc = max(w, min(width - w, xc)), max(h * 1.25, min(height - h * 0.75, yc))
    return int(yc - 1.25 * h), int(yc - 1.25 * h + 2 * h), int(xc - w), int(xc + w)


@pytest.mark.parametrize("at", [(80, 60), (20, 30), (150, 110)])
def test_a_face_is_cut_out_as_the_reference_did(at: tuple[int, int]) -> None:
    target, reference = make_face(*at, 18), make_face(70, 60, 15)
    parts = find_faces(make_frames([], target), make_frames([], reference), (64, 64), None)
    for part, points in zip(parts, (target, reference)):
        box = face_box(points, (0, 0), (1, 1))
        assert np.abs(np.array(part) - box).max() <= 1  # a fraction of a pixel may be cut off elsewhere
        assert abs(part.bottom - part.top - 2 * int(np.ptp(points[:, 0]))) <= 1


def test_in_training_both_faces_have_one_scale_and_each_its_offset() -> None:
    points = make_face(80, 60, 12)
    for seed in range(8):
        rng = random.Random(seed)
        offset = tuple(rng.uniform(-0.2, 0.2) for _ in range(2))
        scale = tuple(rng.uniform(0.8, 1.2) for _ in range(2))
        other = tuple(rng.uniform(-0.2, 0.2) for _ in range(2))
        frames = make_frames([], points)
        of_target, of_reference = find_faces(frames, frames, (64, 64), random.Random(seed))
        for part, drawn in ((of_reference, offset), (of_target, other)):
            box = face_box(points, drawn, scale)  # type: ignore[arg-type]
            assert np.abs(np.array(part) - box).max() <= 1


def dense(*boxes: tuple[int, int, int, int]) -> list[dict[str, np.ndarray]]:
    """A frame for each box of a body: first row, last row, first column, last column."""
    frames = []
    for top, bottom, left, right in boxes:
        array = np.zeros((*SIZE, 3), np.uint8)
        array[top : bottom + 1, left : right + 1, 2] = 5
        frames.append({DENSEPOSE: array})
    return frames


def test_a_person_is_cut_out_over_all_frames() -> None:
    clip = make_frames(dense((40, 70, 60, 80), (50, 90, 70, 90)))
    nobody = make_frames([{DENSEPOSE: np.zeros((*SIZE, 3), np.uint8)}])
    of_clip, of_nobody = find_people(clip, nobody, (128, 64), None)
    # Rows 40 to 90, columns 60 to 90. The width decides: int(30 * 1.5 * 2) // 2 = 45 is more than int(50 * 1.5) // 2.
    assert of_clip == Part(65 - 45, 65 + 45, 75 - 22, 75 + 22)
    assert of_nobody == Part(0, 120, 80 - 30, 80 + 30)


def test_a_wide_person_is_cut_out_as_far_as_the_image_goes() -> None:
    wide = make_frames(dense((50, 60, 5, 150)))
    part, _ = find_people(wide, wide, (64, 64), None)
    assert part == Part(0, 120, 0, 160)


def test_in_training_the_part_of_a_person_moves_a_little() -> None:
    frames = make_frames(dense((40, 80, 60, 80)))
    drawn = [find_people(frames, frames, (64, 64), random.Random(seed)) for seed in range(30)]
    tops = np.array([[part.top for part in parts] for parts in drawn])
    assert len(set(tops[:, 0])) > 3
    assert tops[:, 0].std() > tops[:, 1].std() > 0  # the reference moves less


def test_other_people_are_removed_from_the_label() -> None:
    ids = np.zeros((4, 6, 1), np.uint8)
    ids[:, :3], ids[:, 3:] = 7, 9
    label = np.ones((4, 6, 3), np.uint8)
    strokes = np.zeros((4, 6, 27), np.uint8)
    strokes[1, 1:4, 0] = 255  # two of three pixels lie on 7
    kept = remove_others({DENSEPOSE: label, OPENPOSE: strokes, PEOPLE: ids, "images": label})
    assert kept[DENSEPOSE][:, :3].all() and not kept[DENSEPOSE][:, 3:].any()
    assert np.argwhere(kept[OPENPOSE]).tolist() == [[1, 1, 0], [1, 2, 0]]
    assert kept["images"].all()
    strokes[:] = 0
    assert remove_others({DENSEPOSE: label, OPENPOSE: strokes, PEOPLE: ids})[DENSEPOSE].all()
