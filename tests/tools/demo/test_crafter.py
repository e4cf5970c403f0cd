"""Videos of Crafter: exact flow, classes, ways, and the folder."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("crafter")

from imagier.cli import main
from imagier.data.codecs.flow import unpack
from imagier.run.progress import show_progress
from imagier.tools.demo import crafter as demo
from imagier.tools.demo.crafter import CLASSES, MATERIALS, View, find_flow, record, walk

SIZE = 64
UNIT = SIZE // demo.TILES


@pytest.fixture(scope="module")
def views() -> list[View]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "AREA", 24)
        patch.setattr(demo, "FRAMES", 40)
        return list(walk(7, SIZE))


def test_the_flow_leads_to_the_same_colors_to_the_bit(views: list[View]) -> None:
    shares, still = [], []
    for now, before in zip(views[1:], views):
        flow = find_flow(now, before)
        y, x = np.indices(flow.known.shape)
        there = np.stack([x + flow.vectors[..., 0], y + flow.vectors[..., 1]]).astype(int)
        found = before.image[there[1].clip(0, SIZE - 1), there[0].clip(0, SIZE - 1)]
        assert (found == now.image)[flow.known].all()
        assert not flow.vectors[~flow.known].any() and not (flow.vectors % UNIT).any()
        shares.append(flow.known.mean())
        still.append(np.abs(before.image.astype(int) - now.image)[flow.known].mean())
    assert np.mean(shares) > 0.8 and min(shares) > 0.5
    assert np.mean(still) > 5  # without the flow, colors differ


def test_the_player_walks_and_stays_in_the_middle(views: list[View]) -> None:
    player = CLASSES.index("player")
    moves = [find_flow(now, before).vectors.reshape(-1, 2) for now, before in zip(views[1:], views)]
    assert 0.6 < np.mean([np.abs(vectors).max() > 0 for vectors in moves]) < 1
    for view in views:
        rows, columns = np.nonzero(view.classes == player)
        assert {*(rows // UNIT), *(columns // UNIT)} == {demo.TILES // 2}


def test_classes_are_those_of_the_game(views: list[View]) -> None:
    import crafter.constants

    assert list(MATERIALS[1:]) == crafter.constants.materials
    grass, water = CLASSES.index("grass"), CLASSES.index("water")
    colors = {each: np.concatenate([view.image[view.classes == each] for view in views]) for each in (grass, water)}
    green, blue = (colors[each].mean(axis=0) for each in (grass, water))
    assert green.argmax() == 1 and blue.argmax() == 2


def test_a_folder_has_all_types_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FRAMES", 3)
    monkeypatch.setattr(demo, "AREA", 16)
    words = ["data", "crafter", "--out", str(tmp_path / "set"), "--frames", "5", "--size", "32"]
    assert main(words) == 0
    folder = tmp_path / "set"
    for split, count in (("train", 2), ("val", 1)):
        for kind in ("images", "seg_maps", "flow"):
            assert len(list((folder / split / kind).rglob("*.png"))) == 3 * count
    stored = unpack(cv2.imread(str(next((folder / "train/flow").rglob("000001.png"))), cv2.IMREAD_UNCHANGED)[..., ::-1])
    assert stored.shape == (32, 32, 3) and stored[..., 2].mean() > 0.5
    assert "Permission is hereby granted" in (folder / "CREDITS.txt").read_text()
    assert json.loads((folder / "crafter.json").read_text())["frames"] == {"train": 6, "val": 3}
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    assert main(words) == 0 and "already there" in capsys.readouterr().out
    record(tmp_path / "again", frames=5, size_px=32, seed=0, progress=show_progress)
    assert {path: (tmp_path / "again" / path.relative_to(folder)).read_bytes() for path in before} == before
    assert main([*words, "--seed", "1"]) == 2
    next(iter(before)).unlink()
    assert main(words) == 2 and "instead of" in capsys.readouterr().err


def test_the_current_folder_can_be_filled_and_a_damaged_manifest_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "FRAMES", 2)
    monkeypatch.setattr(demo, "AREA", 16)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ["data", "crafter", "--out", ".", "--frames", "2", "--size", "32"]
    assert main(words) == 0 and len(list((tmp_path / "here/train/flow").rglob("*.png"))) == 2
    (tmp_path / "here/crafter.json").write_text("{")
    monkeypatch.chdir(tmp_path / "here")
    assert main(words) == 2


def test_sizes_that_tiles_do_not_fill_are_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "crafter", "--out", str(tmp_path / "set"), "--size", "60"]) == 2
    assert "multiple of 8" in capsys.readouterr().err
