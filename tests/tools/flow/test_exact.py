"""Exact flow, checked by frames of walls whose every point has a color of its own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from imagier.errors import UserError
from imagier.tools.flow.estimator import Frame
from imagier.tools.flow.exact import FAR_DEPTH, UNKNOWN_DEPTH, Cameras, Exact

SIZE, FOCAL, UNIT = 64, 50.0, 1 / 64
CENTER = (SIZE - 1) / 2


def turn(yaw: float, pitch: float) -> np.ndarray:
    """Camera to world, after a look to the right and down, in radians."""
    around_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return around_y @ around_x


NOW = np.hstack([turn(0.05, -0.02), [[0.6], [-0.3], [0.8]]])
BEFORE = np.hstack([turn(0, 0), [[0], [0], [0.2]]])
FAR_WALL, NEAR_WALL = 20.0, 8.0


def render(pose: np.ndarray, *, with_near: bool) -> tuple[np.ndarray, np.ndarray]:
    """What a camera sees of a wall at z = 20 and, if wanted, a board at z = 8 before its left part: image and depth."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    rays = np.stack([(x - CENTER) / FOCAL, (y - CENTER) / FOCAL, np.ones_like(x)], axis=-1) @ pose[:, :3].T
    image, depth = np.zeros((SIZE, SIZE)), np.full((SIZE, SIZE), np.inf)
    for wall in (FAR_WALL, NEAR_WALL) if with_near else (FAR_WALL,):
        along = (wall - pose[2, 3]) / rays[..., 2]
        points = pose[:, 3] + along[..., None] * rays
        seen = (along < depth) & ((wall == FAR_WALL) | (points[..., 0] < -1))
        color = np.sin(points[..., 0] * 1.1 + wall) + np.cos(points[..., 1] * 1.3)
        image, depth = np.where(seen, color, image), np.where(seen, along, depth)
    return image.astype(np.float32), depth


def make_cameras(**changes: Any) -> Cameras:
    poses = {"a": BEFORE, "b": NOW}
    numbers = {"fx": FOCAL, "fy": FOCAL, "cx": CENTER, "cy": CENTER, "depth_unit": UNIT}
    return Cameras(**{**numbers, "is_sky_cylinder": False, "camera_to_world": poses, **changes})


def store(depth: np.ndarray) -> np.ndarray:
    return (depth / UNIT).round().astype(np.uint16)


@pytest.mark.parametrize("with_near", [False, True])
def test_the_frame_before_warped_by_exact_flow_is_the_frame(with_near: bool) -> None:
    now, depth = render(NOW, with_near=with_near)
    before, depth_before = render(BEFORE, with_near=with_near)
    flow = make_cameras().find_flow("b", store(depth), "a", store(depth_before))
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    warped = cv2.remap(before, x + flow.vectors[..., 0], y + flow.vectors[..., 1], cv2.INTER_LINEAR)
    assert flow.known.mean() > 0.6
    error = np.abs(warped - now)[flow.known]  # that of linear interpolation between the pixels
    assert error.max() < 0.08 and error.mean() < 0.02
    assert np.abs(before - now)[flow.known].mean() > 0.3


def test_what_was_hidden_is_not_known() -> None:
    _, depth = render(NOW, with_near=False)
    _, depth_before = render(BEFORE, with_near=True)
    flow = make_cameras().find_flow("b", store(depth), "a", store(depth_before))
    x = (np.arange(SIZE) + flow.vectors[SIZE // 2, :, 0]).round().astype(int).clip(0, SIZE - 1)
    is_hidden = depth_before[SIZE // 2, x] < 15
    assert 10 < is_hidden.sum() < 50
    assert not flow.known[SIZE // 2][is_hidden].any()


def test_what_moves_by_itself_is_not_known() -> None:
    depths = [store(render(pose, with_near=False)[1]) for pose in (NOW, BEFORE)]
    depths[0][10:20, 30:40] = UNKNOWN_DEPTH
    flow = make_cameras().find_flow("b", depths[0], "a", depths[1])
    assert not flow.known[10:20, 30:40].any() and flow.known[25:60, 10:50].all()


@pytest.mark.parametrize("is_cylinder", [False, True])
def test_the_sky_only_turns(is_cylinder: bool) -> None:
    sky = np.full((SIZE, SIZE), FAR_DEPTH, np.uint16)
    poses = {"a": np.hstack([turn(0, 0), np.zeros((3, 1))]), "b": np.hstack([turn(0.1, 0), 9 * np.ones((3, 1))])}
    cameras = make_cameras(camera_to_world=poses, is_sky_cylinder=is_cylinder)
    flow = cameras.find_flow("b", sky, "a", sky)
    angle = np.arctan((20 - CENTER) / FOCAL) + 0.1  # to the left in the frame, and farther right before
    assert flow.vectors[40, 20, 0] == pytest.approx(FOCAL * np.tan(angle) + CENTER - 20, abs=1e-3)
    assert flow.known[40, 20] and not flow.known[:, -1].any()
    assert (flow.vectors[flow.known][:, 1] == 0).all() == is_cylinder


def test_points_of_two_frames_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    make_cameras().write(path)
    cameras = Cameras.read(path)
    for name, pose in (("a", BEFORE), ("b", NOW)):
        points = cameras.unproject(store(render(pose, with_near=False)[1]), name)
        np.testing.assert_allclose(points[..., 2], FAR_WALL, atol=UNIT)
    assert np.isnan(cameras.unproject(np.array([[UNKNOWN_DEPTH, FAR_DEPTH]], np.uint16), "a")).all()


def make_frame(name: str, dtype: type = np.uint16) -> Frame:
    return Frame("walk", name, {"depth": np.full((SIZE, SIZE, 1), 99, dtype)})


@pytest.mark.parametrize(
    ("text", "frames", "code"),
    [
        (None, ("b", "a"), "missing-file"),
        ("[]", ("b", "a"), "damaged"),
        ('{"fx": 1}', ("b", "a"), "damaged"),
        ("right", ("c", "b"), "missing-pose"),
    ],
)
def test_cameras_that_do_not_fit_are_a_line(
    tmp_path: Path, text: str | None, frames: tuple[str, str], code: str
) -> None:
    path = tmp_path / "cameras" / "walk.json"
    make_cameras().write(path)
    if text is None:
        path.unlink()
    elif text != "right":
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        Exact(tmp_path).estimate(*map(make_frame, frames))
    assert (caught.value.code, Path(caught.value.where)) == (code, path)


@pytest.mark.parametrize("change", [{"sky": "Cylinder"}, {"fx": math.nan}, {"camera_to_world": {"a": [math.inf] * 12}}])
def test_cameras_that_would_make_all_flow_unknown_or_wrong_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "walk.json"
    make_cameras().write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError) as caught:
        Cameras.read(path)
    assert caught.value.code == "damaged"


def test_depth_of_eight_bits_is_refused(tmp_path: Path) -> None:
    make_cameras().write(tmp_path / "cameras" / "walk.json")
    with pytest.raises(UserError) as caught:
        Exact(tmp_path).estimate(make_frame("b", np.uint8), make_frame("a", np.uint8))
    assert caught.value.code == "wrong-dtype"


def test_the_file_says_what_the_docs_say(tmp_path: Path) -> None:
    make_cameras(is_sky_cylinder=True).write(tmp_path / "a.json")
    read = json.loads((tmp_path / "a.json").read_text())
    assert read.keys() == {"fx", "fy", "cx", "cy", "depth_unit", "sky", "camera_to_world"}
    assert read["sky"] == "cylinder" and np.shape(read["camera_to_world"]["b"]) == (3, 4)
