"""`imagier data build`, and the store that a run then opens."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from filelock import FileLock
from images import noise, png
from images import write as file
from small_config import read, write
from stores import EXTENSIONS, contents, folder, reference_lmdb

from imagier.cli import main
from imagier.cli.data.files import read_keys
from imagier.data.sources.folder import FolderSource
from imagier.data.sources.lmdb import LmdbSource
from imagier.data.sources.opening import open_local
from imagier.data.sources.shards import ShardsSource
from imagier.run import build_data

KEYS = ["./top", "a/1", "a/2", "b/1"]
CONFIG = """
trainer: {type: imaginaire.trainers.some_other}  # nothing but input_types counts
data:
  input_types:
  - images: {ext: jpg, num_channels: 3, pre_aug_ops: anything}
  - maps: {ext: png}
  - made: {computed_on_the_fly: true}
"""
SCRIPT = Path(__file__).parents[2] / "scripts" / "build_lmdb.py"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(CONFIG)
    return folder(tmp_path / "files", KEYS)


def arguments(files: Path, *more: str, out: str = "out") -> list[str]:
    return [
        *["--data_root", str(files), "--config", str(files.parent / "c.yaml")],
        *["--output_root", str(files.parent / out), *more],
    ]


def run(store: str, files: Path, *more: str, out: str = "out") -> int:
    return main(["data", "build", store, *arguments(files, *more, out=out)])


def refused(files: Path, capsys: pytest.CaptureFixture[str], *more: str, store: str = "lmdb", out: str = "out") -> str:
    """The one line about a mistake, after which there is nothing new."""
    before = sorted(files.parent.rglob("*"))
    assert run(store, files, *more, out=out) == 2
    line = capsys.readouterr().err.rstrip("\n")
    assert "\n" not in line
    assert sorted(files.parent.rglob("*")) == before
    return line


def test_the_reference_script_takes_all_its_flags_and_makes_its_layout(files: Path) -> None:
    flags = ["--paired", "--large", "--metadata_factor", "0.75", "--remove_missing", "--overwrite", "--input_list", ""]
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments(files, *flags)], check=True, capture_output=True, text=True
    )
    assert ended.stdout.splitlines()[:2] == [
        "--metadata_factor: has no effect, an LMDB grows as needed",
        "--large: has no effect",
    ]
    out = files.parent / "out"
    names = {".": ["top"], "a": ["1", "2"], "b": ["1"]}
    assert (out / "all_filenames.json").read_text() == json.dumps(names, indent=4)
    assert json.loads((out / "metadata.json").read_text()) == EXTENSIONS
    for kind, ext in EXTENSIONS.items():
        options = {"readonly": True, "lock": False, "readahead": False, "meminit": False, "max_readers": 126}
        with lmdb.open(str(out / kind), **options) as environment, environment.begin() as transaction:
            values = {bytes(key).decode("ascii"): bytes(value) for key, value in transaction.cursor()}
        assert values == {key: (files / kind / f"{key}.{ext}").read_bytes() for key in KEYS}


@pytest.mark.parametrize("store", ["lmdb", "shards"])
def test_types_of_their_own_keep_their_own_names(files: Path, store: str) -> None:
    (files / "maps" / "b" / "1.png").unlink()
    assert run(store, files) == 0
    assert contents(open_local(files.parent / "out", EXTENSIONS)) == contents(FolderSource(files, EXTENSIONS))
    if store == "lmdb":
        names = json.loads((files.parent / "out" / "all_filenames.json").read_text())
        assert names["maps"] == {".": ["top"], "a": ["1", "2"]}


def test_what_was_built_is_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "maps" / "b" / "1.png").unlink()
    assert run("shards", files, "--paired", "--remove_missing") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["building shards: 6 of them", "reading it back: 6 of them"]
    assert told[2] == f"{files.parent}/out: 3 images (jpg), 3 maps (png); 1 samples without all files left out"
    assert told[3].startswith("0.0 MB in 6 files, all read back and compared, in ")


def test_a_list_chooses_the_samples(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text("b/1.jpg\na/2.jpg\n\ntop.jpg\n")
    assert run("lmdb", files, "--paired", "--input_list", str(tmp_path / "list.txt")) == 0
    assert LmdbSource(tmp_path / "out", EXTENSIONS).keys("maps") == ["b/1", "a/2", "./top"]
    capsys.readouterr()
    (tmp_path / "list.txt").write_text("b/7.jpg\n")
    line = refused(files, capsys, "--paired", "--input_list", str(tmp_path / "list.txt"), out="other")
    assert line.startswith(f"{files}/images/b/7.jpg: is missing; add it")
    line = refused(files, capsys, "--paired", "--input_list", str(tmp_path / "nowhere"), out="other")
    assert line == f"--input_list {tmp_path}/nowhere: No such file or directory"


@pytest.mark.parametrize(("ext", "line", "key"), [("jpg", "a.jpg.jpg", "./a.jpg"), ("png", "s/b.png.jpg", "s/b.png")])
def test_one_extension_is_taken_from_a_line_of_a_list(tmp_path: Path, ext: str, line: str, key: str) -> None:
    (tmp_path / "list.txt").write_text(line)
    assert read_keys(str(tmp_path / "list.txt"), {"images": ext}) == [key]


def test_an_index_of_samples_that_lack_a_file_is_refused_or_leaves_them_out(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "maps" / "b" / "1.png").unlink()
    index = ["data", "index", "--data_root", str(files), "--config", str(files.parent / "c.yaml"), "--paired"]
    assert main(index) == 2
    assert "--remove_missing" in capsys.readouterr().err
    assert main([*index, "--remove_missing"]) == 0
    assert capsys.readouterr().out.startswith(
        f"{files}: 3 images (jpg), 3 maps (png); 1 samples without all files left out"
    )
    names = json.loads((files / "all_filenames.json").read_text())
    assert names == {"files": ["top"], "files/a": ["1", "2"]}


def test_flags_that_say_nothing_without_paired_are_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shards", files, "--remove_missing") == 0
    assert capsys.readouterr().out.splitlines()[0] == "--remove_missing: has no effect without --paired"


def test_numbers_of_objects_go_with_the_files(files: Path, tmp_path: Path) -> None:
    (files / "all_indices.json").write_text('{"a": [0, 1]}')
    assert run("lmdb", files) == 0
    assert (tmp_path / "out" / "all_indices.json").read_text() == '{"a": [0, 1]}'


def test_parts_of_sequences_become_sequences(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    values = {kind: {"a/1": b"one", "a/2": b"two"} for kind in EXTENSIONS}
    reference_lmdb(tmp_path / "files", values, {"a___000___": ["1"], "a___001___": ["1", "2"]})
    assert run("shards", tmp_path / "files", "--paired") == 0
    made = open_local(tmp_path / "out", EXTENSIONS)
    assert {key: made.read("maps", key) for key in made.keys("maps")} == {
        "a___000___/1": b"one",
        "a___001___/1": b"one",
        "a___001___/2": b"two",
    }


def test_mistakes_are_told_in_one_line_and_nothing_is_left(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(files, capsys, out="files")
    assert line == f"--output_root {files}: holds the files to be read; build elsewhere"
    assert refused(files, capsys, "--overwrite", out=".").endswith("holds the files to be read; build elsewhere")
    assert refused(files, capsys, "--config", "nowhere.yaml").startswith("nowhere.yaml: cannot read the config")
    config = files.parent / "c.yaml"
    config.write_text("data: {}")
    assert refused(files, capsys) == f"{config}:1: data.input_types: names no type of files; " + (
        "list them as '- images: {ext: jpg}'"
    )
    config.write_text("data:\n  input_types:\n  - images: {ext: jpg}\n  - maps: {num_channels: 1}")
    assert refused(files, capsys) == f"{config}:4: data.input_types.maps: needs ext, the extension of its files"
    config.write_text("data: {input_types: [images: {ext: webp}]}")
    assert refused(files, capsys).startswith(f"{files}/images: no file ends in .webp")


def test_a_store_is_not_built_over_another(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lmdb", files) == 0
    capsys.readouterr()
    line = refused(files, capsys, store="shards")
    assert line.startswith(f"{files.parent}/out: already exists; ")
    assert run("shards", files, "--overwrite") == 0
    assert isinstance(open_local(files.parent / "out", EXTENSIONS), ShardsSource)


class Killed(BaseException):
    """Ends a build at once; what is on the disk then is what a kill leaves."""


def killed_at_rename(files: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build over another store, killed before so many folders were put in their places."""
    rename, left = Path.rename, [number]

    def renamed(path: Path, to: Path) -> Path:
        if path.is_dir():
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return rename(path, to)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", renamed)
        run("lmdb", files, "--overwrite")


def test_an_old_store_is_not_lost_by_a_kill_between_its_end_and_the_new_one_s_begin(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("shards", files) == 0
    killed_at_rename(files, 1, monkeypatch)
    assert not (files.parent / "out").exists()
    assert run("lmdb", files) == 2
    assert ": already exists; " in capsys.readouterr().err
    assert isinstance(open_local(files.parent / "out", EXTENSIONS), ShardsSource)
    assert run("lmdb", files, "--overwrite") == 0
    assert isinstance(open_local(files.parent / "out", EXTENSIONS), LmdbSource)
    assert not (files.parent / ".out.partial").exists()


def test_a_finished_store_is_one_though_its_folder_of_work_cannot_be_removed(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over NFS, a file that is open, as the lock is, leaves a trace in its folder until it is closed."""
    rmdir = os.rmdir

    def busy(path: Path | str, **options: Any) -> None:
        if str(path).endswith(".partial"):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))
        rmdir(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", busy)
        assert run("lmdb", files) == 0
    assert contents(open_local(files.parent / "out", EXTENSIONS)) == contents(FolderSource(files, EXTENSIONS))
    assert run("shards", files, "--overwrite") == 0
    assert not (files.parent / ".out.partial").exists()


def test_a_run_that_begins_is_not_disturbed_by_another(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files.parent / "out").mkdir()
    hidden = files.parent / ".out.partial"
    hidden.mkdir()
    with FileLock(hidden / "lock"):  # it has not made its store yet
        assert run("lmdb", files) == 2
        assert capsys.readouterr().err.startswith(f"{files.parent}/out: another run is building it; ")
        assert hidden.is_dir()


def test_the_samples_of_a_seed_are_the_same_from_every_store(tmp_path: Path) -> None:
    write(tmp_path)
    for number, key in enumerate(["a/1", "a/2", "b/1"]):
        file(tmp_path / "folder" / "images" / f"{key}.png", png(noise(70, 90, seed=number)))
        file(tmp_path / "folder" / "seg_maps" / f"{key}.png", png(noise(70, 90, 1, seed=number, below=4)))
    config, _ = read(tmp_path / "small.yaml", f"data.train.roots={tmp_path}/folder")
    split = config.run.data.train
    assert split is not None
    plain = build_data.build_dataset(config.run.data, split, seed=3, is_training=True)
    for store in ("lmdb", "shards"):
        flags = ["--data_root", str(tmp_path / "folder"), "--config", str(tmp_path / "small.yaml"), "--paired"]
        assert main(["data", "build", store, *flags, "--output_root", str(tmp_path / store)]) == 0
        split = dataclasses.replace(split, roots=[str(tmp_path / store)])
        made = build_data.build_dataset(config.run.data, split, seed=3, is_training=True)
        for place in ((0, 0), (0, 1), (7, 2)):
            one, other = plain[place], made[place]
            assert one.keys == other.keys
            assert one.arrays.keys() == other.arrays.keys()
            assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)


def test_a_run_opens_what_the_config_says_or_else_what_lies_there(tmp_path: Path) -> None:
    kinds = {"images": "png", "seg_maps": "png"}
    folder(tmp_path / "folder", ["a/1"], kinds)
    write(tmp_path)
    for store in ("lmdb", "shards"):
        flags = ["--data_root", str(tmp_path / "folder"), "--config", str(tmp_path / "small.yaml")]
        assert main(["data", "build", store, *flags, "--output_root", str(tmp_path / store)]) == 0

    def opened(*overrides: str) -> list[type]:
        config, _ = read(tmp_path / "small.yaml", *overrides)
        assert config.run.data.train is not None
        return [type(source) for source in build_data.open_sources(config.run.data, config.run.data.train)]

    roots = f"data.train.roots=[{tmp_path}/lmdb, {tmp_path}/folder, {tmp_path}/shards]"
    assert opened(roots) == [LmdbSource, FolderSource, ShardsSource]
    for store, cls in (("lmdb", LmdbSource), ("folder", FolderSource), ("shards", ShardsSource)):
        assert opened(f"data.train.roots={tmp_path}/{store}", f"data.train.dataset_type={store}") == [cls]
    assert opened(f"data.train.roots={tmp_path}/lmdb", "data.train.is_lmdb=true") == [LmdbSource]
