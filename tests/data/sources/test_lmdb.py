"""LMDB stores in the reference's layout, written by the package lmdb alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import pytest
from stores import EXTENSIONS, as_somebody, catch, contents, read_there, reference_lmdb
from torch.utils.data import DataLoader

from imagier.data.sources.lmdb import LmdbSource

VALUES = {
    "images": {"city/1": b"image 1", "city/2": b"image 2", "./top": b"image top"},
    "maps": {"city/1": b"map 1", "city/2": b"map 2", "./top": b"map top", "city/left over": b""},
}
PAIRED = {"city": ["2", "1"], ".": ["top"]}
UNPAIRED = {"images": {"city": ["1", "2"]}, "maps": {".": ["top"], "city": ["2"]}}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return reference_lmdb(tmp_path / "store", VALUES, PAIRED)


def refusal(root: Path, extensions: dict[str, str] = EXTENSIONS) -> tuple[str, str]:
    """Place and code of the error for a store that cannot be opened."""
    error = catch(lambda: LmdbSource(root, extensions))
    return error.where, error.code


def test_keys_come_from_the_list_in_order_and_values_from_the_environment(store: Path) -> None:
    source = LmdbSource(store, EXTENSIONS)
    assert source.keys("images") == source.keys("maps") == ["city/2", "city/1", "./top"]
    assert source.shards("images") == [3]
    assert contents(source) == {
        (input_type, key): VALUES[input_type][key] for input_type in VALUES for key in source.keys("images")
    }


def test_unpaired_types_have_separate_lists(tmp_path: Path) -> None:
    source = LmdbSource(reference_lmdb(tmp_path / "store", VALUES, UNPAIRED), EXTENSIONS)
    assert source.keys("images") == ["city/1", "city/2"]
    assert source.keys("maps") == ["./top", "city/2"]


def test_the_extension_comes_from_the_store_and_not_from_the_config(store: Path) -> None:
    (store / "metadata.json").write_text(json.dumps({"images": "PNG", "maps": "png"}))
    assert LmdbSource(store, {"images": "jpg"}).extension("images") == "png"


def test_parts_of_a_sequence_read_the_files_of_the_whole(tmp_path: Path) -> None:
    values = {"images": {"a/1": b"1", "a/2": b"2", "b___000___/1": b"a sequence that is called so"}}
    names = {"a___000___": ["1"], "a___001___": ["1", "2"], "b___000___": ["1"]}
    source = LmdbSource(reference_lmdb(tmp_path / "store", values, names), {"images": "jpg"})
    assert {key: source.read("images", key) for key in source.keys("images")} == {
        "a___000___/1": b"1",
        "a___001___/1": b"1",
        "a___001___/2": b"2",
        "b___000___/1": b"a sequence that is called so",
    }


def test_a_process_can_open_one_root_for_training_and_validation(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    one, other = LmdbSource(store, EXTENSIONS), LmdbSource(tmp_path / "link", {"images": "jpg"})
    assert one.read("images", "./top") == other.read("images", "./top") == b"image top"
    third = LmdbSource(store, EXTENSIONS)  # while the others are open
    assert third.read("maps", "./top") == b"map top"
    with pytest.raises(lmdb.Error, match="already open"):
        lmdb.open(str(store / "images"), readonly=True, lock=False)  # why it must be shared


def test_a_replaced_store_is_opened_again(store: Path, tmp_path: Path) -> None:
    before = LmdbSource(store, EXTENSIONS)
    assert before.read("images", "./top") == b"image top"
    new = reference_lmdb(tmp_path / "new", {"images": {"./top": b"new"}, "maps": {"./top": b""}}, {".": ["top"]})
    store.rename(tmp_path / "old")
    new.rename(store)
    assert LmdbSource(store, EXTENSIONS).read("images", "./top") == b"new"
    assert before.read("images", "./top") == b"image top"


def _owner(source: LmdbSource) -> bool:
    source.read("images", "./top")
    return source._environments["images"]._owner == os.getpid()


def test_a_forked_process_does_not_use_the_inherited_handle(store: Path) -> None:
    source = LmdbSource(store, EXTENSIONS)
    assert _owner(source)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_owner, (source,))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_other_processes_can_read_an_open_source(store: Path, method: str) -> None:
    source = LmdbSource(store, EXTENSIONS)
    assert source.read("images", "city/1") == b"image 1"  # open here, before the others come
    keys = source.keys("images")
    with multiprocessing.get_context(method).Pool(2) as pool:
        read = pool.map(read_there, [(source, key) for key in keys] * 4, chunksize=1)
    assert [data for _, data in read] == [VALUES["images"][key] for key in keys] * 4
    assert os.getpid() not in {pid for pid, _ in read}
    assert source.read("images", "city/2") == b"image 2"


def test_any_number_of_workers_reads_the_same(store: Path) -> None:
    source = LmdbSource(store, EXTENSIONS)
    items: Any = [(input_type, key) for input_type in EXTENSIONS for key in source.keys(input_type)] * 3
    served = {
        workers: list(DataLoader(items, batch_size=None, num_workers=workers, collate_fn=lambda i: source.read(*i)))
        for workers in (0, 1, 2)
    }
    assert served[0] == served[1] == served[2] == [VALUES[input_type][key] for input_type, key in items]


def test_a_source_can_be_opened_while_another_thread_starts_to_read_the_same_root(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of a store must not close the handle that another thread reads from."""
    source = LmdbSource(store, {"images": "jpg"})
    reads: list[Future[bytes]] = []

    class Watched:
        """A handle: another thread reads while it is looked at, and is in the midst of it when it is closed."""

        def __init__(self, handle: Any) -> None:
            self.handle = handle
            self.closed = threading.Event()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.handle, name)

        def stat(self) -> Any:
            reads.append(pool.submit(source.read, "images", "./top"))
            time.sleep(0.05)
            return self.handle.stat()

        def begin(self, **options: Any) -> Any:
            self.closed.wait(0.1)
            return self.handle.begin(**options)

        def close(self) -> None:
            self.handle.close()
            self.closed.set()

    watched = SimpleNamespace(**{**vars(lmdb), "open": lambda *where, **how: Watched(lmdb.open(*where, **how))})
    monkeypatch.setattr("imagier.data.sources.lmdb.import_lmdb", lambda: watched)
    with ThreadPoolExecutor(1) as pool:
        LmdbSource(store, {"images": "jpg"})
        assert [read.result() for read in reads] == [b"image top"]


def test_no_handle_is_open_until_the_first_read(store: Path) -> None:
    source = LmdbSource(store, EXTENSIONS)
    assert str(store) not in Path("/proc/self/maps").read_text()
    source.read("maps", "city/1")
    maps = Path("/proc/self/maps").read_text()
    assert f"{store}/maps/data.mdb" in maps and f"{store}/images" not in maps
    again = pickle.loads(pickle.dumps(source))
    assert contents(again) == contents(source)


def test_a_store_without_write_permission_is_read_and_nothing_is_written(store: Path) -> None:
    folders = [store, store / "images", store / "maps"]
    for path in folders:
        for lock in path.glob("lock.mdb"):
            lock.unlink()
    before = [path.stat().st_mtime_ns for path in folders]
    for path in folders:
        path.chmod(0o555)
    with as_somebody(store / "images"):
        assert LmdbSource(store, EXTENSIONS).read("maps", "city/1") == b"map 1"
    assert [path.stat().st_mtime_ns for path in folders] == before
    for path in folders:
        path.chmod(0o755)


@pytest.mark.parametrize("name", ["all_filenames.json", "metadata.json"])
def test_a_store_without_its_lists_is_an_error(store: Path, name: str) -> None:
    (store / name).unlink()
    assert refusal(store) == (str(store), "missing-index")


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("all_filenames.json", "{", "not-json"),
        ("all_filenames.json", "[" * 100_000, "not-json"),
        ("all_filenames.json", "[]", "bad-index"),
        ("all_filenames.json", '{"a": [1]}', "bad-index"),
        ("all_filenames.json", '{"a": "b"}', "bad-index"),
        ("metadata.json", '["png"]', "bad-index"),
        ("metadata.json", "\x00\xff", "not-json"),
    ],
)
def test_malformed_lists_are_an_error(store: Path, name: str, text: str, code: str) -> None:
    (store / name).write_bytes(text.encode("latin1"))
    assert refusal(store) == (f"{store}/{name}", code)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "a/../../b", "\ud800"])
def test_a_list_with_unsafe_names_is_refused(store: Path, name: str) -> None:
    (store / "all_filenames.json").write_text(json.dumps({"city": ["1", name], "" if name else "x": ["/a"]}))
    assert refusal(store) == (f"{store}/all_filenames.json", "bad-key")


def test_an_empty_list_is_an_error(store: Path) -> None:
    (store / "all_filenames.json").write_text("{}")
    assert refusal(store) == (f"{store}/all_filenames.json", "no-files")


def test_a_missing_type_is_an_error_that_lists_the_existing_ones(store: Path) -> None:
    error = catch(lambda: LmdbSource(store, {"depth": "png"}))
    assert (error.where, error.code) == (f"{store}/all_filenames.json", "missing-input-type")
    assert "'depth'" in error.what and "images, maps" in error.advice


def test_a_missing_or_damaged_environment_is_an_error(store: Path) -> None:
    data = store / "images" / "data.mdb"
    data.write_bytes(b"something else" * 1000)
    assert refusal(store) == (str(data), "damaged-lmdb")
    data.write_bytes(b"")
    assert refusal(store) == (str(data), "damaged-lmdb")
    data.unlink()
    assert refusal(store) == (str(data), "unreadable-file")


def test_a_file_that_was_cut_off_is_an_error_before_reading_kills_the_process(tmp_path: Path) -> None:
    values = {"images": {f"s/{i}": bytes(5000) for i in range(100)}}
    store = reference_lmdb(tmp_path / "store", values, {"s": [str(i) for i in range(100)]})
    data = store / "images" / "data.mdb"
    whole = data.stat().st_size
    os.truncate(data, whole // 2)
    assert refusal(store, {"images": "jpg"}) == (str(data), "damaged-lmdb")


def test_a_store_with_too_few_entries_is_an_error(store: Path) -> None:
    (store / "all_filenames.json").write_text(json.dumps({"city": [str(i) for i in range(9)]}))
    assert refusal(store) == (f"{store}/images/data.mdb", "missing-file")


def test_reading_a_listed_but_missing_file_is_an_error(store: Path) -> None:
    (store / "all_filenames.json").write_text(json.dumps({"city": ["1", "3", "x" * 600]}))
    source = LmdbSource(store, EXTENSIONS)
    for key in ("city/3", f"city/{'x' * 600}"):
        error = catch(lambda key=key: source.read("images", key))
        assert (error.where, error.code) == (f"{store}/images/data.mdb[{key}]", "missing-file")


def test_the_modification_time_of_a_removed_file_is_an_error(store: Path) -> None:
    source = LmdbSource(store, EXTENSIONS)
    assert source.mtime_ns("images", "city/1") == (store / "images" / "data.mdb").stat().st_mtime_ns
    (store / "images" / "data.mdb").unlink()
    error = catch(lambda: source.mtime_ns("images", "city/1"))
    assert (error.where, error.code) == (f"{store}/images/data.mdb", "unreadable-file")


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    error = catch(lambda: LmdbSource(store, EXTENSIONS))
    assert error.code == "not-installed" and "imagier[lmdb]" in error.advice
