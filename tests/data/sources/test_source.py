"""The contract of sources: its example runs; a folder gives the right files in order."""

from __future__ import annotations

import sqlite3
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from docstrings import example
from images import noise, png, write
from small_data import build, codec_for
from stores import catch

from imagier.data.datasets.paired_images import Dataset
from imagier.data.sources.folder import FolderSource
from imagier.data.sources.source import Source, unique_names


def source(root: Path, *names: str, ext: str = "png") -> FolderSource:
    """A source over root/images with empty files of those names."""
    for name in names:
        write(root / "images" / name)
    return FolderSource(root, {"images": ext})


def test_the_example_in_the_docstring_serves_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "files.sqlite"
    images = {f"s/{i}": noise(8, 9, seed=i) for i in range(3)}
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE files (input_type TEXT, key TEXT, data BLOB)")
        rows = [("images", key, png(image)) for key, image in images.items()]
        database.executemany("INSERT INTO files VALUES (?, ?, ?)", reversed(rows))
    names: dict[str, type] = {}
    exec(example(Source), names)
    found = names["SqliteSource"](path, {"images": "png"})
    data = build(Dataset, [found], codecs=[codec_for(name="images", ext="png")], augmentations={"resize_h_w": "8, 9"})
    assert [data[0, i].keys["images"] for i in range(len(data))] == list(images)
    for i, image in enumerate(images.values()):
        np.testing.assert_array_equal(data.load(i)["images"], image)
    assert found.open("images", "s/1").read() == png(images["s/1"])
    error = catch(lambda: found.read("images", "s/9"))
    assert (error.where, error.code) == (f"{path}[images/s/9]", "missing-file")
    assert {name for name in vars(Source) if not name.startswith("_")} <= {*dir(found)}, "the example is incomplete"


def test_a_key_is_the_path_below_the_type_without_extension(tmp_path: Path) -> None:
    found = source(tmp_path, "top.png", "city/day/1.png", "city/0.png").keys("images")
    assert found == ["./top", "city/0", "city/day/1"]


def test_sequences_are_sorted_by_path_and_files_by_name(tmp_path: Path) -> None:
    names = [f"{sequence}/{name}.png" for sequence in ("b", "a/x", "a-1", "a", "Z") for name in ("10", "9", "a.b", "a")]
    keys = source(tmp_path, *names).keys("images")
    sequences = {name.rpartition("/")[0] for name in names}
    assert keys == [f"{sequence}/{name}" for sequence in sorted(sequences) for name in ("10", "9", "a", "a.b")]


def test_the_whole_extension_counts_in_any_spelling(tmp_path: Path) -> None:
    names = ["a.png", "b.PNG", "c.jpg", "d.png.txt", "epng", "f.tar.png"]
    assert source(tmp_path, *names).keys("images") == ["./a", "./b", "./f.tar"]
    upper = FolderSource(tmp_path, {"images": "PNG"})
    assert upper.keys("images") == ["./a", "./b", "./f.tar"]
    assert upper.extension("images") == "png"
    assert FolderSource(tmp_path, {"images": "png"}, is_literal=True).keys("images") == ["./a", "./f.tar"]


def test_hidden_files_and_folders_named_like_files_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "images" / "folder.png").mkdir(parents=True)
    names = [".png", "._a.png", ".hidden.png", "a.png", "folder.png/b.png"]
    assert source(tmp_path, *names).keys("images") == ["./a", "folder.png/b"]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    assert FolderSource(tmp_path / "set", {"images": "png"}).keys("images") == ["linked/a"]


ODD_NAMES = ["猫", unicodedata.normalize("NFD", "é"), "a b", "100%", "a{b}", "a'\"b", "-x", "#1", "new\nline", "a.b.c"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_with_any_name_is_found_and_read(tmp_path: Path, name: str) -> None:
    write(tmp_path / "images" / name / f"{name}.png", name.encode())
    files = FolderSource(tmp_path, {"images": "png"})
    assert files.keys("images") == [f"{name}/{name}"]
    assert files.read("images", f"{name}/{name}") == name.encode()
    path = str(tmp_path / "images" / name / f"{name}.png")
    assert files.where("images", f"{name}/{name}") == path.replace("\n", "\\n")  # a message is one line


def test_every_type_has_its_own_extension(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.jpg", b"image")
    write(tmp_path / "seg_maps" / "a.png", b"map")
    files = FolderSource(tmp_path, {"images": "jpg", "seg_maps": "png"})
    assert [files.read(input_type, key) for input_type in ("images", "seg_maps") for key in files.keys(input_type)] == [
        b"image",
        b"map",
    ]


def test_a_missing_root_is_an_error() -> None:
    error = catch(lambda: FolderSource("no/such", {"images": "png"}))
    assert (error.where, error.code) == ("no/such", "missing-folder")


def test_a_missing_type_is_an_error_that_lists_the_existing_ones(tmp_path: Path) -> None:
    files = source(tmp_path, "a.png")
    write(tmp_path / "labels" / "a.png")
    error = catch(lambda: files.keys("seg_maps"))
    assert (error.where, error.code) == (str(tmp_path), "missing-input-type")
    assert "'seg_maps'" in error.what and "images, labels" in error.advice


def test_an_empty_root_is_an_error(tmp_path: Path) -> None:
    error = catch(lambda: FolderSource(tmp_path, {"images": "png"}).keys("images"))
    assert (error.where, error.code, error.advice) == (str(tmp_path), "missing-input-type", "it has no folders")


def test_a_folder_without_files_of_the_extension_is_an_error(tmp_path: Path) -> None:
    error = catch(lambda: source(tmp_path, "a.jpg").keys("images"))
    assert (error.where, error.code) == (f"{tmp_path}/images", "no-files")
    assert ".png" in error.what and "'images'" in error.advice


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    files = source(tmp_path, "a.png")
    (tmp_path / "images" / "broken.png").symlink_to(tmp_path / "nowhere")
    assert files.keys("images") == ["./a", "./broken"]
    error = catch(lambda: files.read("images", "./broken"))
    assert (error.where, error.code) == (f"{tmp_path}/images/broken.png", "unreadable-file")


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["s/a", "s/b"], ["s/a", "s/b"]),
        (["s/a", "t/a", "s/a", "s/a"], ["s/a", "t/a", "s/a_2", "s/a_3"]),
        (["a", "a", "a_2"], ["a", "a_3", "a_2"]),  # a file that is called so keeps its name
        (["a_2", "a", "a", "a_2"], ["a_2", "a", "a_3", "a_2_2"]),
        ([], []),
    ],
)
def test_names_from_several_sources_are_unique(keys: list[str], names: list[str]) -> None:
    assert unique_names(keys) == names
    assert len(set(names)) == len(names)
