"""Files beside those that are meant: other spellings of an extension, other formats, and what systems leave behind."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from images import write
from stores import catch

from imagier.data.sources.folder import FolderSource
from imagier.data.sources.index import read_index
from imagier.data.sources.opening import open_local
from imagier.data.sources.shard_files import LocalFiles
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source, is_metadata
from imagier.tools.stores.engine import Writer, build
from imagier.tools.stores.lmdb_writer import LmdbWriter
from imagier.tools.stores.plan import Plan, make_plan
from imagier.tools.stores.shard_writer import ShardWriter

FILES = ["a.jpg", "b.JPG", "c.jpeg", "d.Jpeg", "e.png", "f.webp", "g.txt", "s/h.JPG"]
KEYS = ["./a", "./b", "./c", "./d", "s/h"]
JUNK = [
    ".hidden/x.jpg",
    ".Trash/deep/x.jpg",
    "__MACOSX/x.jpg",
    "cat/__MACOSX/x.jpg",
    "@eaDir/x.jpg",
    "._a.jpg",
    "cat/._a.jpg",
    "Thumbs.db",
]


def folder(root: Path, *names: str) -> FolderSource:
    for name in names:
        write(root / "images" / name, name.encode())
    return FolderSource(root, {"images": "jpg"})


def tar(path: Path, *names: str) -> ShardsSource:
    """Plain members, whose content is their name."""
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name.encode())
            archive.addfile(member, BytesIO(name.encode()))
    return ShardsSource(LocalFiles(path.parent), {"images": "jpg"})


def check_contents(source: Source, expected: dict[str, str]) -> None:
    assert {key: source.read("images", key).decode() for key in source.keys("images")} == expected


def test_a_folder_reads_all_spellings_and_names_the_number_of_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folder(tmp_path, *FILES)
    assert source.keys("images") == source.keys("images") == KEYS
    (line,) = caplog.messages
    assert "2 images are not used (1 .png, 1 .webp)" in line
    for other in (source, pickle.loads(pickle.dumps(source)), FolderSource(tmp_path, {"images": "jpg"})):
        assert [other.read("images", key).decode() for key in KEYS] == ["a.jpg", "b.JPG", "c.jpeg", "d.Jpeg", "s/h.JPG"]
        assert other.mtime_ns("images", "./b")
        with other.open("images", "s/h") as file:
            assert file.read() == b"s/h.JPG"
    assert source.where("images", "./c") == str(tmp_path / "images" / "c.jpeg")


def test_of_two_spellings_of_a_name_the_one_of_the_config_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folder(tmp_path, "a.JPG", "a.jpg", "a.jpeg", "b.JPEG", "b.JPG")
    check_contents(source, {"./a": "a.jpg", "./b": "b.JPEG"})
    assert "3 images are not used" in caplog.messages[0]


def test_a_folder_without_others_is_no_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path, "a.jpg", "a.json", "README").keys("images")
    assert caplog.messages == []


@pytest.mark.parametrize("writer", [LmdbWriter, partial(ShardWriter, shard_bytes=100)])
def test_built_stores_hold_all_spellings(tmp_path: Path, writer: Callable[[Path, Plan], Writer]) -> None:
    source = folder(tmp_path / "raw", *FILES)
    plan = make_plan(source, ["images"])
    build(source, plan, tmp_path / "store", writer)
    made = open_local(tmp_path / "store", {"images": "jpg"})
    assert made.keys("images") == KEYS
    assert made.read("images", "./b") == b"b.JPG"


def test_shards_read_all_spellings_and_name_the_number_of_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["c.images.JPG", "a.images.jpg", "s/b.images.jpeg", "d.images.jpg", "e.images.png"]
    source = tar(tmp_path / "a.tar", *names)
    assert source.keys("images") == ["./c", "./a", "s/b", "./d"]
    check_contents(source, {"./c": names[0], "./a": names[1], "s/b": names[2], "./d": names[3]})
    assert source.shards("images") == [4]
    assert source.where("images", "s/b") == f"{tmp_path}/a.tar[s/b.images.jpeg]"
    assert source.extension("images") == "jpg"
    assert "1 image is not used (1 .png)" in caplog.messages[0]


def test_shards_of_plain_names_read_all_spellings(tmp_path: Path) -> None:
    check_contents(tar(tmp_path / "a.tar", "a.JPG", "b.jpg"), {"./a": "a.JPG", "./b": "b.jpg"})


@pytest.mark.parametrize("name", JUNK)
def test_what_systems_leave_behind_is_no_data(tmp_path: Path, name: str) -> None:
    assert is_metadata(name)
    assert folder(tmp_path / "f", "cat/b.jpg", name).keys("images") == ["cat/b"]
    (tmp_path / "t").mkdir()
    assert tar(tmp_path / "t" / "a.tar", "cat/b.images.jpg", f"./{name}").keys("images") == ["cat/b"]
    sequence, _, stem = f"./{name}".rpartition("/")
    listed = f'{{"cat": ["b"], "{sequence}": ["{stem}"]}}'.encode()
    keys, _ = read_index(listed, b'{"images": "jpg"}', ["images"], "somewhere", "")
    assert list(keys["images"]) == ["cat/b"]


@pytest.mark.parametrize("name", ["a.b", "./a", "a/./b", "..", "a_MACOSX/b", "eaDir"])
def test_other_names_are_data(name: str) -> None:
    assert not is_metadata(name)


def test_a_hidden_shard_is_none(tmp_path: Path) -> None:
    write(tmp_path / "._a.tar", b"Mac OS X")
    assert tar(tmp_path / "a.tar", "b.images.jpg").keys("images") == ["./b"]


def test_an_unsafe_member_is_still_refused(tmp_path: Path) -> None:
    assert catch(lambda: tar(tmp_path / "a.tar", "../b.images.jpg")).code == "unsafe-member"
