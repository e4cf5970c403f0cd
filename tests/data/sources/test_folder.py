"""Folders with links, unusual names and missing permissions."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from images import write
from stores import as_somebody, catch, folder

from imagier.data.sources.folder import FolderSource
from imagier.data.sources.opening import open_local

PNG = {"images": "png"}


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../images"])
def test_a_link_to_a_folder_that_contains_it_is_an_error(tmp_path: Path, target: str) -> None:
    write(tmp_path / "images" / "s" / "a.png")
    (tmp_path / "images" / "s" / "loop").symlink_to(target)
    error = catch(lambda: FolderSource(tmp_path, PNG).keys("images"))
    assert error.where.startswith(f"{tmp_path}/images/s/loop") and error.code == "link-cycle"


def test_two_links_to_one_folder_are_two_sequences(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.png", b"a")
    (tmp_path / "images").mkdir()
    for name in ("x", "y"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "elsewhere")
    source = FolderSource(tmp_path, PNG)
    assert source.keys("images") == ["x/a", "y/a"]
    assert source.read("images", "y/a") == b"a"


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "self").symlink_to("self")
    error = catch(lambda: FolderSource(tmp_path, PNG).keys("images"))
    assert (error.where, error.code) == (f"{tmp_path}/images/self", "unreadable-folder")


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"s\xff/a.png"])
def test_a_name_that_is_not_utf8_is_an_error_that_can_be_printed(tmp_path: Path, name: bytes) -> None:
    write(Path(os.fsdecode(bytes(tmp_path / "images") + b"/" + name)))
    error = catch(lambda: FolderSource(tmp_path, PNG).keys("images"))
    assert str(error).isascii() and str(error).isprintable()
    assert error.code == "bad-key" and ascii(os.fsdecode(name))[1:-1] in error.where


def test_a_folder_without_permission_is_an_error_and_not_empty(tmp_path: Path) -> None:
    write(tmp_path / "images" / "good" / "a.png")
    write(tmp_path / "images" / "closed" / "b.png")
    (tmp_path / "images" / "closed").chmod(0)
    source = FolderSource(tmp_path, PNG)
    with as_somebody(tmp_path / "images"):
        error = catch(lambda: source.keys("images"))
    assert (error.where, error.code) == (f"{tmp_path}/images/closed", "unreadable-folder")


def test_a_root_without_permission_is_an_error(tmp_path: Path) -> None:
    root = folder(tmp_path / "root", ["a/1"], PNG)
    root.chmod(0)
    with as_somebody(root):
        for opened in (FolderSource, open_local):
            error = catch(lambda opened=opened: opened(root, PNG).keys("images"))
            assert error.where.startswith(str(root)) and error.code == "unreadable-folder"
    root.chmod(0o711)  # may be passed, but not listed
    with as_somebody(root):
        error = catch(lambda: open_local(root, {"maps": "png"}))
    assert (error.where, error.code) == (str(root), "unreadable-folder")


def test_a_file_without_permission_or_that_vanished_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "images" / "a.png")
    source = FolderSource(tmp_path, PNG)
    path.chmod(0)
    with as_somebody(path):
        error = catch(lambda: source.read("images", "./a"))
    assert (error.where, error.what, error.code) == (str(path), "Permission denied", "unreadable-file")
    path.unlink()
    for look in (source.read, source.open, source.mtime_ns):
        error = catch(lambda look=look: look("images", "./a"))
        assert (error.where, error.what, error.code) == (str(path), "No such file or directory", "unreadable-file")


def test_all_keys_are_one_shard(tmp_path: Path) -> None:
    source = FolderSource(folder(tmp_path, ["a/1", "b/1", "b/2"], PNG), PNG)
    assert source.shards("images") == [3]
    assert source.keys("images") == ["a/1", "b/1", "b/2"]
    write(tmp_path / "images" / "c.png")
    assert source.shards("images") == [3], "it is not listed twice"


def test_a_change_shows_in_the_modification_time(tmp_path: Path) -> None:
    path = write(tmp_path / "images" / "a.png")
    source = FolderSource(tmp_path, PNG)
    os.utime(path, ns=(0, 10**18))
    assert source.mtime_ns("images", "./a") == 10**18
    os.utime(path, ns=(0, 10**18 + 1))
    assert source.mtime_ns("images", "./a") == 10**18 + 1


def test_it_can_be_sent_to_another_process(tmp_path: Path) -> None:
    source = FolderSource(folder(tmp_path, ["a/1"], PNG), PNG)
    again = pickle.loads(pickle.dumps(source))
    assert again.read("images", "a/1") == source.read("images", "a/1")
