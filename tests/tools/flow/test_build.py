"""`imagier data build flow`: what it writes, and how it continues."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import png, smooth, write
from small_data import build
from videos import counting

from imagier.cli import main
from imagier.data.codec import InputType
from imagier.data.codecs import flow, image
from imagier.data.codecs.flow import unpack
from imagier.data.datasets import paired_videos
from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.frame_index import FrameIndex
from imagier.data.loading.collate import collate
from imagier.data.loading.faults import Read
from imagier.data.loading.on_device import Expander
from imagier.data.sources.folder import FolderSource
from imagier.errors import UserError
from imagier.recipe import Batch
from imagier.run.progress import Update
from imagier.tools.flow.build import build_flow

FRAMES, SHIFT = 5, 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sequences: in one everything moves to the right by 3 px a frame, in the other down by 3 px."""
    whole = cv2.resize(smooth(90, 90, seed=1), (90, 90))
    whole = cv2.add(
        whole // 2, cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8), (5, 5), 0)
    )
    for number in range(FRAMES):
        at = 20 - SHIFT * number
        write(tmp_path / "set/images/right" / f"{number:03d}.png", png(whole[10:74, at : at + 64]))
        write(tmp_path / "set/images/down" / f"{number:03d}.png", png(whole[at : at + 64, 10:74]))
    return tmp_path / "set"


def read(root: Path, sequence: str, number: int) -> np.ndarray:
    return unpack(cv2.imread(str(root / "flow" / sequence / f"{number:03d}.png"), cv2.IMREAD_UNCHANGED)[..., ::-1])


def list_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_flow_leads_to_the_frame_before(root: Path) -> None:
    made = build_flow(root)
    assert (made.frames, made.sequences, made.known) == (2 * FRAMES, 2, 0)
    for sequence, expected in (("right", [-SHIFT, 0]), ("down", [0, -SHIFT])):
        assert not read(root, sequence, 0).any()
        for number in range(1, FRAMES):
            found = read(root, sequence, number)
            known = found[..., 2] > 0
            assert known.mean() > 0.7
            np.testing.assert_allclose(np.median(found[known][:, :2], axis=0), expected, atol=0.1)


def test_what_is_there_is_not_made_again(root: Path) -> None:
    build_flow(root)
    before, made = list_files(root), root / "flow/right/002.png"
    made.unlink()
    leftover = write(root / "flow/right" / f".003.png.{os.getpid()}.tmp", b"half")
    kept = root / "flow/right/001.png"
    modified = kept.stat().st_mtime_ns
    assert build_flow(root).known == 2 * FRAMES - 2  # the next one's flow may have led to another frame
    assert list_files(root) == before
    assert kept.stat().st_mtime_ns == modified and not leftover.exists()


def test_flow_leads_to_a_frame_that_is_added_later(root: Path) -> None:
    build_flow(root)
    whole, middle = list_files(root), root / "images/right/002.png"
    (root / "flow/right").rename(root / "old")
    image = middle.read_bytes()
    middle.unlink()
    build_flow(root)
    assert read(root, "right", 3)[..., 0].min() < -1.5 * SHIFT
    middle.write_bytes(image)
    build_flow(root)
    shutil.rmtree(root / "old")
    assert list_files(root) == whole


def test_flow_that_leads_to_a_frame_that_is_gone_is_refused(root: Path) -> None:
    build_flow(root)
    types = {"images": "png", "flow": "png"}
    codecs = [image.Codec(InputType(name="images", ext="png")), flow.Codec(InputType(name="flow", ext="png"))]
    assert len(FrameIndex(FolderSource(root, types), codecs, OpenVideos()).sequences) == 2
    (root / "images/right/002.png").unlink()
    for order in (codecs, codecs[::-1]):
        with pytest.raises(UserError) as caught:
            FrameIndex(FolderSource(root, types), order, OpenVideos())
        assert caught.value.code == "missing-partner"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_call_that_was_stopped_is_continued(root: Path, tmp_path: Path, error: type[BaseException]) -> None:
    @contextmanager
    def stop_soon(what: str) -> Iterator[Update]:
        def update(done: int, total: int) -> None:
            if done == 3:
                raise error

        yield update

    with pytest.raises(error):
        build_flow(root, progress=stop_soon)
    written = len(list((root / "flow").rglob("*.png")))
    assert 3 <= written < 2 * FRAMES
    assert build_flow(root).known == written
    stopped = list_files(root)
    for path in (root / "flow").rglob("*.png"):
        path.unlink()
    build_flow(root, workers=1)
    assert list_files(root) == stopped


def test_flow_of_another_estimator_is_kept(root: Path) -> None:
    build_flow(root)
    before = list_files(root)
    write(root / "depth/right/000.png", png(np.full((64, 64, 1), 900, np.uint16)))
    with pytest.raises(UserError) as caught:
        build_flow(root, "exact")
    assert caught.value.code == "other-flow"
    (root / "flow.json").write_bytes(b"\xff")
    with pytest.raises(UserError):
        build_flow(root)
    del before["flow.json"]
    assert before.items() <= list_files(root).items()


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (np.zeros((64, 60, 3), np.uint8), "frames-differ"),
        (np.zeros((64, 64, 3), np.uint16), "no-flow-in-it"),
        (np.zeros((8, 64, 3), np.uint8), "no-flow-in-it"),
    ],
)
def test_frames_without_flow_are_a_line(tmp_path: Path, second: np.ndarray, code: str) -> None:
    first = second if code == "no-flow-in-it" else np.zeros((64, 64, 3), np.uint8)
    for number, frame in enumerate((first, second)):
        write(tmp_path / "images/a" / f"{number}.png", png(frame))
    with pytest.raises(UserError) as caught:
        build_flow(tmp_path)
    assert caught.value.code == code and "a/1" in str(caught.value.where)


def test_the_flow_of_a_clip_explains_its_frames_after_all_augmentations(root: Path) -> None:
    build_flow(root)
    types = {"images": "png", "flow": "png"}
    codecs = [image.Codec(InputType(name="images", ext="png")), flow.Codec(InputType(name="flow", ext="png"))]
    augmentations = {"resize_h_w": "96, 80", "horizontal_flip": True, "random_crop_h_w": "80, 72"}
    options = {"is_training": True, "initial_sequence_length": 4, "max_sequence_length": 4}
    sources = [FolderSource(root, types)]
    clips = build(paired_videos.Dataset, sources, codecs=codecs, augmentations=augmentations, **options)
    samples = [clips[0, index] for index in range(6)]
    loaded = collate([Read(sample=sample) for sample in samples])
    batch = Expander(codecs, [])(Batch(loaded.tensors))
    assert batch.tensors.keys() == {"images", "flow", "flow_confidence"}
    assert batch["flow"].shape == (6, 4, 2, 80, 72) and batch["flow_confidence"].shape == (6, 4, 1, 80, 72)
    assert {sample.numbers["is_flipped"] for sample in samples} == {True, False}
    frames, vectors = batch["images"][:, 1:].flatten(0, 1), batch["flow"][:, 1:].flatten(0, 1)
    known = batch["flow_confidence"][:, 1:].flatten(0, 1).expand_as(frames) > 0
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(72.0), indexing="ij")
    places = torch.stack([x + vectors[:, 0], y + vectors[:, 1]], dim=-1)
    grid = (2 * places + 1) / torch.tensor([72, 80]) - 1
    past = batch["images"][:, :-1].flatten(0, 1)
    error = (F.grid_sample(past, grid, align_corners=False) - frames)[known].abs().mean()
    assert known.float().mean() > 0.7 and error < 0.15 * (past - frames)[known].abs().mean()


@pytest.mark.parametrize("file", ["images/data.mdb", "000.tar"])
def test_a_store_is_refused(tmp_path: Path, file: str) -> None:
    write(tmp_path / file)
    with pytest.raises(UserError) as caught:
        build_flow(tmp_path)
    assert (caught.value.code, caught.value.where) == ("not-a-folder", str(tmp_path))


def test_flow_of_video_files_has_the_names_of_the_frames_beside_them(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write(tmp_path / "images" / "a.mp4", counting(4, form="mp4", codec="mpeg4", pixels="yuv420p"))
    for number in range(4):
        write(tmp_path / "seg_maps/a" / f"frame{number}.png", png(np.zeros((64, 64, 1), np.uint8)))
    types = {"images": "mp4", "seg_maps": "png", "flow": "png"}
    assert build_flow(tmp_path, extensions=types).frames == 4
    assert {path.name for path in (tmp_path / "flow/a").iterdir()} == {f"frame{number}.png" for number in range(4)}
    codecs = [image.Codec(InputType(name=name, ext=ext)) for name, ext in types.items()]
    index = FrameIndex(FolderSource(tmp_path, types), codecs, OpenVideos())
    assert [sequence.length for sequence in index.sequences] == [4]


def test_the_command_takes_a_folder_or_a_config(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    write(root.parent / "clips.yaml", CONFIG.encode())
    shutil.copytree(root, "other")
    assert main(["data", "build", "flow", "clips.yaml"]) == 0
    assert capsys.readouterr().out.count("flow of 10 frames in 2 sequences") == 2
    assert main(["data", "build", "flow", "set", "--workers", "1"]) == 0
    assert "10 of them before" in capsys.readouterr().out
    assert main(["data", "build", "flow", "sets"]) == 2
    assert main(["data", "build", "flow", "set/images"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


CONFIG = """\
data:
  input_types:
  - images: {ext: png, num_channels: 3}
  - flow: {ext: png, type: flow}
  input_image: [images]
  train: {roots: set}
test_data:
  test: {roots: [set, other]}
"""
