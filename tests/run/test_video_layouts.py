"""Small data in the layouts of the reference's unit tests of video methods, and what networks see of them."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from formula_vgg import write_formula_vgg19
from images import png, write
from people import make_face, make_person, openpose_json
from reference_videos import FEW_SHOT_FACE_TEST, write_config
from small_config import read

from imagier.cli import main
from imagier.config.check import Config
from imagier.data.drawing.face import draw_face, fit_proportions
from imagier.data.drawing.pose import draw_pose
from imagier.recipe import Batch, Position
from imagier.run import build_data, status
from imagier.run.inference import find_test_set
from imagier.train import runtime as runtimes
from imagier.train.runtime import Runtime

FRAMES = 6


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    started = runtimes.start("cpu", single=True, local_rank=None)
    yield started
    runtimes.stop(started)


def jpg(value: int, height: int, width: int) -> bytes:
    """An image of one gray, which JPEG keeps."""
    return cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100])[
        1
    ].tobytes()


def config_of(folder: Path, name: str, **options: str) -> Config:
    (folder / "video.yaml").write_text(write_config(name, str(folder / "data"), **options))
    return read(folder / "video.yaml")[0]


def training_batch(config: Config, runtime: Runtime) -> Batch:
    batch, _ = next(build_data.build_train_loader(config, runtime, seed=0).stream(Position()))
    return batch


def gray(images: torch.Tensor) -> list[int]:
    """The gray of each frame of the first sample, from [-1, 1]."""
    return ((images[0].mean(dim=(1, 2, 3)) + 1) * 127.5).round().int().tolist()


def write_street(root: Path) -> None:
    for t in range(FRAMES):
        classes = np.full((96, 128, 1), t, np.uint8)
        classes[:, 64:] = 34 if t % 2 else 255
        write(root / "images" / "seq0001" / f"{t:05d}.jpg", jpg(20 * t, 96, 128))
        write(root / "seg_maps" / "seq0001" / f"{t:05d}.png", png(classes))


def write_world(root: Path) -> None:
    """A wall that moves by a pixel from frame to frame, with its points in a pickle each."""
    rows, columns = np.mgrid[:48, :64]
    for t in range(FRAMES):
        name, points = f"walk/{t:05d}", rows * 1000 + columns + t
        gray = np.stack([points * number % 256 for number in (1, 2, 3)], axis=-1).astype(np.uint8)
        write(root / "images" / f"{name}.jpg", cv2.imencode(".jpg", gray)[1].tobytes())
        write(root / "seg_maps" / f"{name}.png", png((points % 5).astype(np.uint8)[..., None]))
        write(root / "depth_maps-megadepth" / f"{name}.png", png(gray))
        flat = np.stack([rows, columns, points], axis=-1).ravel().tolist()
        write(root / "unprojections" / f"{name}.pkl", pickle.dumps({"w64xh48": flat}, 2))


def test_street(tmp_path: Path, runtime: Runtime) -> None:
    write_street(tmp_path / "data")
    batch = training_batch(config_of(tmp_path, "street"), runtime)
    assert batch["images"].shape == (1, 4, 3, 48, 64) and batch["label"].shape == (1, 4, 36, 48, 64)
    shown = [value // 20 for value in gray(batch["images"])]
    assert shown == list(range(shown[0], shown[0] + 4))
    for t, label in zip(shown, batch["label"][0]):
        expected = torch.zeros(36, 48, 64)
        expected[t, :, :32] = expected[34 if t % 2 else 35, :, 32:] = 1
        assert torch.equal(label, expected)


def write_people(root: Path) -> None:
    """DensePose: part 3 in a box that moves; OpenPose: a person of 64 px, and a larger one behind; ids as in both."""
    for t in range(FRAMES):
        name, body, ids = f"dance/{t:03d}", np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 1), np.uint8)
        body[8:60, 20 + t : 40 + t] = (10, 200, 3)
        ids[:, :45] = 1
        write(root / "images" / f"{name}.jpg", jpg(20 * t, 64, 64))
        write(root / "pose_maps-densepose" / f"{name}.png", png(body))
        write(root / "human_instance_maps" / f"{name}.png", png(ids))
        write(root / "poses-openpose" / f"{name}.json", openpose_json(make_person(0.2), make_person(0.25)))


def test_pose(tmp_path: Path, runtime: Runtime) -> None:
    write_people(tmp_path / "data")
    config = config_of(tmp_path, "pose")
    batch = training_batch(config, runtime)
    assert batch["images"].shape == (1, 4, 3, 64, 32) and batch["label"].shape == (1, 4, 30, 64, 32)
    held_out = build_data.build_validation_loader(config, runtime, seed=0)
    assert held_out is not None
    for t, frame in enumerate(held_out.once()):
        body = np.zeros((64, 64, 3), np.float32)
        body[8:60, 20 + t : 40 + t] = (10, 200, 3)
        np.testing.assert_allclose(frame["label"][0, 0, :3], (body[:, 16:48] / 255).transpose(2, 0, 1), atol=1e-6)
        points = make_person(0.2)
        points[:, 0] -= 16
        strokes = draw_pose(points.astype(np.float32), (64, 32), channels=27).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(frame["label"][0, 0, 3:], strokes, atol=1e-6)
    dropped = [float(training_batch(config, runtime)["label"][:, :, 3:].sum()) for _ in range(2)]
    assert dropped[0] == dropped[1]


def test_few_shot_pose(tmp_path: Path, runtime: Runtime) -> None:
    write_people(tmp_path / "data")
    config = config_of(tmp_path, "few_shot_pose")
    batch = training_batch(config, runtime)
    assert batch["few_shot_images"].shape == (1, 1, 3, 64, 32) and batch["few_shot_label"].shape == (1, 1, 6, 64, 32)
    assert batch["images"].shape == (1, 4, 3, 64, 32) and batch["label"].shape == (1, 4, 6, 64, 32)
    shown, reference = gray(batch["images"]), gray(batch["few_shot_images"])
    assert not set(shown) & set(reference)
    held_out = build_data.build_validation_loader(config, runtime, seed=0)
    assert held_out is not None
    for t, frame in enumerate(held_out.once()):
        # Frame 0: rows 8 to 59, columns 20 to 39. Half the height is 64 // 2, half the width 16, at column 29.
        assert gray(frame["images"]) == [20 * t] and gray(frame["few_shot_images"]) == [0]
        part = (frame["label"][0, 0, 2] * 255).round()
        expected = torch.zeros(64, 32)
        expected[8:60, 20 + t - 13 : min(40 + t, 45) - 13] = 3  # beyond column 44 is somebody else
        assert torch.equal(part, expected)
        large = make_person(0.25).astype(np.float32)
        strokes = draw_pose(large, (64, 64), channels=3, basic_points_only=True)[:, 13:45].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(frame["label"][0, 0, 3:], strokes, atol=1e-6)


def face_at(sequence: int, t: int) -> np.ndarray:
    return make_face(40 + 4 * t, 48, 16 + 3 * sequence) + 0.5


def write_faces(root: Path) -> None:
    for sequence in range(2):
        for t in range(FRAMES):
            name, value = f"person_{sequence}/{t:05d}", 100 * sequence + 10 * t
            write(root / "images" / f"{name}.jpg", jpg(value, 96, 112))
            points = json.dumps(face_at(sequence, t).tolist()).encode()
            write(root / "landmarks-dlib68" / f"{name}.json", points)


def test_few_shot_face(tmp_path: Path, runtime: Runtime) -> None:
    """Also of inference: a face moves another one, whose proportions it gets."""
    write_faces(tmp_path / "data")
    pins = "{driving_seq_index: 1, few_shot_seq_index: 0, few_shot_frame_index: 2}"
    config = config_of(tmp_path, "few_shot_face", test_data=FEW_SHOT_FACE_TEST, inference_args=pins)
    batch = training_batch(config, runtime)
    assert batch["label"].shape == (1, 4, 1, 32, 32) and batch["few_shot_label"].shape == (1, 1, 1, 32, 32)
    assert float(batch["label"].mean()) > 0.01
    data, split = find_test_set(config)
    video = np.stack([face_at(1, t) for t in range(FRAMES)])
    fitted = fit_proportions(video, face_at(0, 2), momentum=0.8, window=3)
    loader = build_data.build_held_out_loader(config, runtime, data, split, seed=0)
    frames = list(loader.once())
    assert [frame.keys["images"][0] for frame in frames] == [f"person_1/{t:05d}" for t in range(FRAMES)]
    for t, frame in enumerate(frames):
        assert gray(frame["images"]) == [100 + 10 * t] and gray(frame["few_shot_images"]) == [20]
        for name, points, first in (("label", fitted[t], face_at(1, 0)), ("few_shot_label", *[face_at(0, 2)] * 2)):
            small, box = (points + 0.5) / 2 - 0.5, find_box((first + 0.5) / 2 - 0.5, 48, 56)
            sketch = draw_face(small.astype(np.float32), (48, 56), width=1, add_upper_face=True)[..., 0][box]
            plane = torch.from_numpy(np.ascontiguousarray(sketch))[None, None]
            expected = torch.nn.functional.interpolate(plane, size=(32, 32), mode="bilinear", align_corners=False)
            np.testing.assert_allclose(frame[name][0, 0], expected[0], atol=1e-5)


def find_box(points: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """fs_vid2vid.md, section 6, without jitter: rows and columns."""
    (left, top), (right, bottom) = points.min(axis=0).astype(int), points.max(axis=0).astype(int)
    x, y, side = (left + right) // 2, (top + bottom) // 2, right - left
    x, y = max(side, min(width - side, x)), max(1.25 * side, min(height - 0.75 * side, y))
    rows = slice(max(0, int(y - 1.25 * side)), int(y - 1.25 * side + 2 * side))
    return rows, slice(max(0, int(x - side)), int(x + side))


LAYOUTS = {
    "street": write_street,
    "pose": write_people,
    "few_shot_face": write_faces,
    "few_shot_pose": write_people,
    "world": write_world,
}
DROPPED = {
    "street": ["gen.num_downsamples", "flow_network"],
    "pose": ["gen.num_downsamples", "flow_network"],
    "few_shot_face": ["flow_network"],
    "few_shot_pose": ["flow_network"],
    "world": ["gen.num_downsamples", "flow_network", "unprojections"],
}
"""Keys of which the log says why they change nothing."""


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the file of VGG-19 that a config asks for; its weights are made by a formula."""
    home = tmp_path_factory.mktemp("torch_home")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    write_formula_vgg19(home / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth", "relu_5_1")
    return home


@pytest.mark.slow  # losses of frames go through the whole VGG-19
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_config_of_the_reference_trains_unchanged(
    name: str, tmp_path: Path, torch_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    data, config, run = tmp_path / "data", tmp_path / "unit_test.yaml", tmp_path / "run"
    LAYOUTS[name](data)
    config.write_text(write_config(name, str(data)))
    if name == "world":
        assert main(["data", "build", "unprojections", str(data)]) == status.DONE
    words = ["train", "--config", str(config), "--logdir", str(run), "--device", "cpu"]
    assert main([*words, "--dry-run"]) == status.DONE
    said = capsys.readouterr().out
    for key in DROPPED[name]:
        assert f": {key}: " in said, key
    assert main(["data", "check", str(config), "--workers", "0"]) == status.DONE
    assert main(["data", "preview", str(config), str(tmp_path / "page.html")]) == status.DONE
    assert main([*words, "max_iter=2"]) == status.DONE
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [record for record in records if "gen_update/total" in record]
    assert [record["step"] for record in losses] == [1, 2]
    wanted = {"GAN", "GAN_T0", "FeatureMatching", "Perceptual", "Flow_L1", "Flow_Warp", "Flow_Mask"}
    wanted |= {"GAN_face"} if name.endswith("pose") else {"Guidance"} if name == "world" else set()
    for record in losses:
        assert {f"gen_update/{loss}" for loss in wanted} <= record.keys()
        values = [value for key, value in record.items() if "_update/" in key]
        assert all(math.isfinite(value) for value in values)
        assert all(record[f"gen_update/{loss}"] > 0 for loss in ("FeatureMatching", "Perceptual", "Flow_Mask"))
