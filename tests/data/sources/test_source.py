"""Which files of a folder belong to a data set, and in which order."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from images import write

from imagier.data.sources.folder import FolderSource
from imagier.data.sources.source import unique_names
from imagier.errors import UserError


def source(root: Path, *names: str, ext: str = "png") -> FolderSource:
    """A source over root/images with empty files of those names."""
    for name in names:
        write(root / "images" / name)
    return FolderSource(root, {"images": ext})


def test_a_key_is_the_path_below_the_type_without_extension(tmp_path: Path) -> None:
    found = source(tmp_path, "top.png", "city/day/1.png", "city/0.png").keys("images")
    assert found == ["./top", "city/0", "city/day/1"]


def test_sequences_come_in_the_order_of_their_paths_and_files_in_that_of_their_names(tmp_path: Path) -> None:
    names = [f"{sequence}/{name}.png" for sequence in ("b", "a/x", "a-1", "a", "Z") for name in ("10", "9", "a.b", "a")]
    keys = source(tmp_path, *names).keys("images")
    sequences = {name.rpartition("/")[0] for name in names}
    assert keys == [f"{sequence}/{name}" for sequence in sorted(sequences) for name in ("10", "9", "a", "a.b")]


def test_the_extension_is_taken_literally(tmp_path: Path) -> None:
    names = ["a.png", "b.PNG", "c.jpg", "d.png.txt", "epng", "f.tar.png"]
    assert source(tmp_path, *names).keys("images") == ["./a", "./f.tar"]
    upper = FolderSource(tmp_path, {"images": "PNG"})
    assert upper.keys("images") == ["./b"]
    assert upper.extension("images") == "png"


def test_hidden_files_and_folders_named_like_files_are_no_samples(tmp_path: Path) -> None:
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
    assert [files.read(kind, key) for kind in ("images", "seg_maps") for key in files.keys(kind)] == [
        b"image",
        b"map",
    ]


def test_a_missing_root_is_named() -> None:
    with pytest.raises(UserError, match=r"^no/such: no such folder; check `roots`"):
        FolderSource("no/such", {"images": "png"})


def test_a_missing_type_is_named_with_what_is_there_instead(tmp_path: Path) -> None:
    files = source(tmp_path, "a.png")
    write(tmp_path / "labels" / "a.png")
    with pytest.raises(UserError) as caught:
        files.keys("seg_maps")
    assert str(caught.value).startswith(f"{tmp_path}: no folder 'seg_maps'")
    assert str(caught.value).endswith("it has: images, labels")


def test_an_empty_root_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder 'images' .*; it has no folders$"):
        FolderSource(tmp_path, {"images": "png"}).keys("images")


def test_a_folder_without_a_file_of_the_extension_is_named_with_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        source(tmp_path, "a.jpg").keys("images")
    assert str(caught.value) == f"{tmp_path / 'images'}: no file ends in .png; check `ext` of input type 'images'"


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    files = source(tmp_path, "a.png")
    (tmp_path / "images" / "broken.png").symlink_to(tmp_path / "nowhere")
    assert files.keys("images") == ["./a", "./broken"]
    with pytest.raises(UserError, match=rf"^{tmp_path}/images/broken\.png: No such file or directory$"):
        files.read("images", "./broken")


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
