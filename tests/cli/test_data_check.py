"""`imagier data check`: exit status, table, page and JSON, on sets of every type and from every store."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import any_type
import cv2
import numpy as np
import pytest
import tiny
from images import png, smooth, write

from imagier.cli import main

ELSEWHERE = re.compile(r"""\b(?:src|href)=["'](?!data:|#)|@import|url\((?!#)|<script""")
"""What a page that opens without a network does not have."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("good"), train=6, val=3)


@pytest.fixture
def data(good: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(good, tmp_path / "data"))


def checked(config: Path, *words: object) -> int:
    return main(["data", "check", *map(str, (config, *words)), "--workers", "0"])


def experiment(folder: Path, data: Path, **run: object) -> Path:
    return tiny.write_config(folder / "small.yaml", data, **run)


def test_a_good_set_is_told_in_a_table_and_exits_with_0(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(experiment(tmp_path, good), "--html", tmp_path / "p.html", "--json", tmp_path / "p.json") == 0
    said = capsys.readouterr().out
    assert re.search(r"train . seg_maps .\s+6 .\s+1 .\s+32 x 32 .\s+1 .\s+8 .\s+0 to 3", said)
    assert "0 errors, 0 warnings" in said
    assert json.loads((tmp_path / "p.json").read_text())["findings"] == []


def test_the_page_opens_without_anything_from_elsewhere_and_has_images(good: Path, tmp_path: Path) -> None:
    checked(experiment(tmp_path, good), "--html", tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text()
    assert not ELSEWHERE.search(text)
    assert text.count('src="data:image/') >= 4 * 3
    assert "No problems found" in text


def test_names_of_types_are_never_cut(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = shutil.copytree(good, tmp_path / "renamed")
    name = "segmentation_maps_of_the_scene"
    for split in ("train", "val"):
        (data / split / "seg_maps").rename(data / split / name)
    config = experiment(tmp_path, data)
    config.write_text(config.read_text().replace("seg_maps", name))
    assert checked(config) == 0
    assert capsys.readouterr().out.count(f"│ {name} │") == 2


def test_classes_beyond_the_last_are_marked_unless_there_is_a_class_for_them(good: Path, tmp_path: Path) -> None:
    config = experiment(tmp_path, good)
    for use_dont_care, marked in (("false", 1), ("true", 0)):
        where = ["data.one_hot_num_classes.seg_maps=3", f"data.use_dont_care={use_dont_care}"]
        checked(config, "--html", tmp_path / "p.html", *where)
        assert (tmp_path / "p.html").read_text().count('<div class="beyond">') == marked


def test_a_broken_set_exits_with_1_and_all_files_are_in_page_and_json(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = data / "train/seg_maps/001.png"
    gone.unlink()
    for name in ("000", "002", "003", "004"):
        (data / f"train/images/{name}.png").write_bytes(b"broken")
    (data / "val/images/<b>&.png").write_bytes((data / "val/images/000.png").read_bytes())
    shutil.copy(data / "val/seg_maps/000.png", data / "val/seg_maps/<b>&.png")
    assert checked(experiment(tmp_path, data), "--html", tmp_path / "p.html", "--json", tmp_path / "p.json") == 1
    said = capsys.readouterr().out
    assert str(gone) in said
    assert "4 of 6 files cannot be read" in said
    assert "... and 1 more" in said
    page, rows = (tmp_path / "p.html").read_text(), json.loads((tmp_path / "p.json").read_text())["findings"]
    for name in ("000", "002", "003", "004"):
        assert f"images/{name}.png: not an image" in page
        assert any(f"images/{name}.png" in line for row in rows for line in row["rows"])
    assert "<b>&" not in page  # a name is text, whatever it looks like
    assert not ELSEWHERE.search(page)


def test_mistakes_of_the_command_line_exit_with_2(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment(tmp_path, good)
    assert checked(tmp_path / "none.yaml") == 2
    assert "none.yaml" in capsys.readouterr().err
    assert checked(config, "data.tyqe=x") == 2
    assert "tyqe" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        checked(config, "--html", tmp_path)
    assert exit_.value.code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]


def test_a_full_disk_is_told_in_a_line_and_leaves_no_half_a_page(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = experiment(tmp_path, good)
    monkeypatch.setattr(os, "fsync", full)
    assert checked(config, "--html", tmp_path / "p.html") == 2
    assert f"{tmp_path / 'p.html'}: No space left on device; make room" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.train.roots=[nowhere]"], "train: nowhere: no such folder"),
        (["data.train.batch_size=7"], "train: the training set has 6 samples, fewer than one step takes"),
        (["data.one_hot_num_classes.seg_maps=2"], "train, seg_maps: 6 of 6 maps with classes beyond 1"),
        (["data.val.augmentations={resize_smallest_side: 30}", "data.val.batch_size=1"], "0 errors"),
        (["data.train.augmentations.random_crop_h_w=40, 40", "data.train.augmentations.resize_h_w=40, 40"], "0 errors"),
    ],
)
def test_what_would_end_a_run_is_an_error(
    overrides: list[str], words: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(experiment(tmp_path, good), *overrides) == (0 if words == "0 errors" else 1)
    assert words in capsys.readouterr().out


def test_a_quick_check_reads_a_part_and_says_so(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagier.tools.doctor.examination.QUICK_FILES", 2)
    assert checked(experiment(tmp_path, good), "--quick") == 0
    said = capsys.readouterr().out
    assert "2 of 6" in said
    assert "8 files read" in said


@pytest.mark.parametrize("type_", any_type.TYPES)
def test_sets_of_every_type_are_read_whole(
    type_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    config = any_type.write_set(tmp_path, type_)
    assert checked(config, "--html", tmp_path / "p.html") == 0
    said = capsys.readouterr().out
    assert "0 errors, 0 warnings" in said
    assert f"{2 * any_type.PER_FOLDER * len(any_type.FOLDERS[type_])} files read" in said
    broken = next((tmp_path / "data" / "train").rglob("3.png"))
    broken.write_bytes(broken.read_bytes()[:-9])
    assert checked(config) == 1
    assert f"{broken}: the file is cut off" in capsys.readouterr().out


@pytest.mark.parametrize("store", ["lmdb", "shards"])
def test_other_stores_give_the_same_findings_under_their_own_names(
    store: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(data / "train/images/000.png", data / "val/images/001.png")
    cv2.imwrite(str(data / "train/seg_maps/002.png"), np.full((32, 32), 9, np.uint8))
    config = experiment(tmp_path, data)
    found = []
    for roots in ("data", store):
        if roots == store:
            for split in ("train", "val"):
                build = ["--data_root", data / split, "--config", config, "--output_root", tmp_path / store / split]
                assert main(["data", "build", store, "--paired", *map(str, build)]) == 0
        where = [f"data.{split}.roots=[{tmp_path / roots / split}]" for split in ("train", "val")]
        assert checked(config, "--json", tmp_path / f"{roots}.json", *where) == 1
        found.append(json.loads((tmp_path / f"{roots}.json").read_text()))
    assert found[0]["files"] == found[1]["files"]
    assert [row["what"] for row in found[0]["findings"]] == [row["what"] for row in found[1]["findings"]]
    assert len(found[0]["findings"]) >= 2
    assert str(tmp_path / store) in json.dumps(found[1]["findings"])


@pytest.mark.slow
def test_an_interrupt_ends_it_at_once_without_a_traceback(tmp_path: Path) -> None:
    one = write(tmp_path / "one.png", png(smooth(256, 256)))
    for kind in ("images_a", "images_b"):
        (tmp_path / "data/train" / kind).mkdir(parents=True)
        for i in range(4000):
            os.link(one, tmp_path / "data/train" / kind / f"{i}.png")
    config = any_type.write_set(tmp_path, "unpaired_images")
    command = [sys.executable, "-m", "imagier", "data", "check", str(config), "--workers", "2"]
    process = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "reading files" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""
