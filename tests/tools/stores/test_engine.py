"""A store is there whole or not at all: after kills, on full disks, whatever happens to the files meanwhile."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from filelock import FileLock
from stores import EXTENSIONS, contents, folder

from imagier.data.sources.folder import FolderSource
from imagier.data.sources.opening import detect_store, open_local
from imagier.data.sources.source import Source
from imagier.errors import UserError
from imagier.tools.stores.engine import BuildSummary, build
from imagier.tools.stores.lmdb_writer import LmdbWriter
from imagier.tools.stores.plan import Plan, make_plan
from imagier.tools.stores.shard_writer import ShardWriter

from . import killed_build
from .killed_build import WRITERS

KEYS = [f"s{i // 25}/{i:03}" for i in range(50)]
FORMATS = sorted(WRITERS)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return folder(tmp_path / "files", KEYS)


def partial(out: Path) -> Path:
    return out.parent / f".{out.name}.partial"


def made(source: Source, out: Path, store: str, *, overwrite: bool = False) -> BuildSummary:
    return build(source, make_plan(source, list(EXTENSIONS), paired=True), out, WRITERS[store], overwrite=overwrite)


def quiet(what: str) -> nullcontext[Callable[[int, int], None]]:
    return nullcontext(lambda done, total: None)


def hashes(root: Path) -> dict[str, str]:
    """Of every file but those in which LMDB leaves what was in memory."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".mdb"
    }


@pytest.mark.parametrize("store", FORMATS)
def test_a_store_is_told_from_others_and_has_what_the_folder_has(tmp_path: Path, files: Path, store: str) -> None:
    source = FolderSource(files, EXTENSIONS)
    built = made(source, tmp_path / "out", store)
    expected = contents(source)
    assert (built.files, built.bytes, built.continued_from) == (100, sum(map(len, expected.values())), 0)
    assert detect_store(tmp_path / "out", EXTENSIONS) == store
    assert list(contents(open_local(tmp_path / "out", EXTENSIONS)).items()) == list(expected.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "out"]


def test_a_store_of_a_store_of_a_store_is_the_same(tmp_path: Path, files: Path) -> None:
    source: Source = FolderSource(files, EXTENSIONS)
    expected = contents(source)
    for i, store in enumerate(["lmdb", "shards", "lmdb", "shards"]):
        made(source, tmp_path / str(i), store)
        source = open_local(tmp_path / str(i), EXTENSIONS)
        assert list(contents(source).items()) == list(expected.items())
    assert hashes(tmp_path / "1") == hashes(tmp_path / "3")
    assert hashes(tmp_path / "0") == hashes(tmp_path / "2")


def test_an_lmdb_grows_far_beyond_the_map_that_it_begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagier.tools.stores.lmdb_writer._FIRST_MAP_BYTES", 2**14)
    source = FolderSource(folder(tmp_path / "files", KEYS, most_bytes=20_000), EXTENSIONS)
    made(source, tmp_path / "out", "lmdb")
    assert (tmp_path / "out" / "images" / "data.mdb").stat().st_size > 2**18
    assert contents(open_local(tmp_path / "out", EXTENSIONS)) == contents(source)


# Kills.


def killed(files: Path, out: Path, store: str, stage: str, count: int) -> None:
    arguments = [str(files), str(out), store, stage, str(count)]
    ended = subprocess.run([sys.executable, killed_build.__file__, *arguments], check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("store", FORMATS)
@pytest.mark.parametrize(
    ("stage", "count"), [("building", 1), ("building", 30), ("building", 61), ("building", 100), ("reading", 50)]
)
def test_a_build_goes_on_after_kill_9_and_ends_as_if_there_had_been_none(
    tmp_path: Path, files: Path, store: str, stage: str, count: int
) -> None:
    out = tmp_path / "out"
    killed(files, out, store, stage, count)
    assert not out.exists()
    written: list[tuple[int, int]] = []

    @contextmanager
    def counting(what: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: written.append((done, total)) if what.startswith("building") else None

    built = killed_build.run(files, out, store, counting)
    assert len(written) == 100 - built.continued_from
    assert built.continued_from == 100 if stage == "reading" else count - 40 < built.continued_from <= count
    killed_build.run(files, tmp_path / "straight", store, quiet)
    assert hashes(out) == hashes(tmp_path / "straight")
    one, other = (open_local(root, EXTENSIONS) for root in (out, tmp_path / "straight"))
    assert list(contents(one).items()) == list(contents(other).items())
    assert not partial(out).exists()


@pytest.mark.slow
@pytest.mark.parametrize("store", FORMATS)
def test_a_build_that_is_killed_again_and_again_comes_to_its_end(tmp_path: Path, files: Path, store: str) -> None:
    for count in (20, 45, 46, 70, 99):
        killed(files, tmp_path / "out", store, "building", count)
    built = killed_build.run(files, tmp_path / "out", store, quiet)
    assert built.continued_from > 50
    assert contents(open_local(tmp_path / "out", EXTENSIONS)) == contents(FolderSource(files, EXTENSIONS))


class Stopped(Exception):
    """Ends a build in this process."""


def stopped(files: Path, out: Path, store: str, count: int) -> None:
    """A build that ends in its middle: what is on the disk then is what a kill leaves."""

    @contextmanager
    def progress(what: str) -> Iterator[Callable[[int, int], None]]:
        def update(done: int, total: int) -> None:
            if done == count:
                raise Stopped

        yield update

    with pytest.raises(Stopped):
        killed_build.run(files, out, store, progress)


@pytest.mark.parametrize("store", FORMATS)
def test_after_a_change_of_a_file_that_was_built_all_is_built_anew(tmp_path: Path, files: Path, store: str) -> None:
    stopped(files, tmp_path / "out", store, 90)
    path = files / "images" / f"{KEYS[0]}.jpg"
    path.write_bytes(b"corrected")
    built = killed_build.run(files, tmp_path / "out", store, quiet)
    assert built.continued_from == 0
    assert open_local(tmp_path / "out", EXTENSIONS).read("images", KEYS[0]) == b"corrected"


@pytest.mark.parametrize("store", FORMATS)
def test_after_a_change_of_the_list_of_files_all_is_built_anew(tmp_path: Path, files: Path, store: str) -> None:
    stopped(files, tmp_path / "out", store, 90)
    for kind, ext in EXTENSIONS.items():
        (files / kind / f"s0/new.{ext}").write_bytes(b"new")
    assert killed_build.run(files, tmp_path / "out", store, quiet).continued_from == 0
    assert "s0/new" in open_local(tmp_path / "out", EXTENSIONS).keys("maps")


def test_work_of_other_settings_is_not_gone_on_with(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    stopped(files, out, "shards", 90)
    source = FolderSource(files, EXTENSIONS)
    planned = make_plan(source, list(EXTENSIONS), paired=True)
    large: Callable[[Path, Plan], ShardWriter] = lambda f, p: ShardWriter(f, p, shard_bytes=50_000)  # noqa: E731
    assert build(source, planned, out, large).continued_from == 0
    build(source, planned, tmp_path / "straight", large)
    assert hashes(out) == hashes(tmp_path / "straight")
    stopped(files, tmp_path / "other", "shards", 90)
    assert build(source, planned, tmp_path / "other", WRITERS["shards"], settings="of elsewhere").continued_from == 0


@pytest.mark.parametrize("store", FORMATS)
@pytest.mark.parametrize("lost", ["journal", "store"])
def test_work_that_does_not_fit_its_journal_is_not_gone_on_with(
    tmp_path: Path, files: Path, store: str, lost: str
) -> None:
    out = tmp_path / "out"
    stopped(files, out, store, 90)
    if lost == "journal":
        os.truncate(partial(out) / "journal", 33)
    else:
        shutil.rmtree(partial(out) / "store")
    assert killed_build.run(files, out, store, quiet).continued_from == 0
    assert contents(open_local(out, EXTENSIONS)) == contents(FolderSource(files, EXTENSIONS))


# Faults.


@pytest.mark.parametrize("store", FORMATS)
def test_what_is_there_is_not_touched_unless_that_is_asked_for(tmp_path: Path, files: Path, store: str) -> None:
    out = tmp_path / "out"
    (out / "precious").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        killed_build.run(files, out, store, quiet, overwrite=False)
    assert (caught.value.where, caught.value.code) == (str(out), "store-exists")
    stopped(files, out, store, 90)
    assert (out / "precious").is_dir(), "not before the new store is finished"
    killed_build.run(files, out, store, quiet)
    assert not (out / "precious").exists()
    assert not partial(out).exists()


@pytest.mark.parametrize("store", FORMATS)
def test_a_file_that_vanishes_after_it_was_listed_is_named_and_the_rest_goes_on(
    tmp_path: Path, files: Path, store: str
) -> None:
    source = FolderSource(files, EXTENSIONS)
    planned = make_plan(source, list(EXTENSIONS), paired=True)
    path = files / "maps" / f"{KEYS[40]}.png"
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError) as caught:
        build(source, planned, tmp_path / "out", WRITERS[store])
    hidden = partial(tmp_path / "out")
    assert caught.value.where == str(path)
    assert str(hidden) in caught.value.advice
    assert not (tmp_path / "out").exists()
    path.write_bytes(data)
    built = build(source, planned, tmp_path / "out", WRITERS[store])
    assert built.continued_from > 20
    assert contents(open_local(tmp_path / "out", EXTENSIONS)) == contents(source)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk, no file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("store", FORMATS)
def test_where_nothing_more_can_be_written_it_is_told_and_the_work_is_kept(
    tmp_path: Path, files: Path, store: str
) -> None:
    out = tmp_path / "out"
    writer: Callable[[Path, Plan], LmdbWriter | ShardWriter] = lambda f, p: (  # noqa: E731
        LmdbWriter(f, p, commit_files=7) if store == "lmdb" else ShardWriter(f, p, shard_bytes=50_000)
    )
    source = FolderSource(files, EXTENSIONS)
    planned = make_plan(source, list(EXTENSIONS), paired=True)
    with largest_file(40_000), pytest.raises(UserError) as caught:
        build(source, planned, out, writer)
    assert ("File too large" if store == "shards" else "Input/output error") in caught.value.what
    assert caught.value.code == "build-failed"
    assert str(partial(out)) in caught.value.advice
    assert not out.exists()
    build(source, planned, out, writer)
    assert contents(open_local(out, EXTENSIONS)) == contents(source)


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=100k tmpfs $1 && cd $1/.. || exit 77
build="$2 -m imagier data build $3 --data_root files --config c.yaml --output_root $1/out"
$build
ls -A $1
mount -o remount,size=10m $1 && $build
"""


@pytest.mark.slow
@pytest.mark.parametrize("store", FORMATS)
def test_on_a_full_disk_that_is_told_and_with_more_room_the_same_command_goes_on(
    tmp_path: Path, files: Path, store: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "c.yaml").write_text("data: {input_types: [images: {ext: jpg}, maps: {ext: png}]}")
    alone = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode != 0:
        pytest.skip("nobody may mount a disk here")
    script = ["sh", "-c", ON_A_SMALL_DISK, "sh", str(disk), sys.executable, store]
    ended = subprocess.run([*alone, *script], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended
    assert ended.stderr.startswith(f"{disk}/out: No space left on device; ")
    assert str(partial(disk / "out")) in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ".out.partial" in ended.stdout.splitlines()
    assert ended.stdout.splitlines()[-1].startswith("0.1 MB in 100 files")


@pytest.mark.parametrize("store", FORMATS)
def test_a_store_that_reads_back_as_something_else_is_not_kept(
    tmp_path: Path, files: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(LmdbWriter if store == "lmdb" else ShardWriter):  # type: ignore[misc]
        def add(self, kind: str, key: str, data: bytes) -> int:
            return super().add(kind, key, data if key != KEYS[33] else bytes(len(data)))

    options = {} if store == "lmdb" else {"shard_bytes": 10**6}
    source = FolderSource(files, EXTENSIONS)
    with pytest.raises(UserError) as caught:
        build(source, make_plan(source, list(EXTENSIONS)), tmp_path / "out", lambda f, p: Faulty(f, p, **options))
    assert KEYS[33] in caught.value.where
    assert caught.value.code == "wrong-bytes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files"]


def test_two_builds_of_one_store_do_not_meet(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    partial(out).mkdir()
    with FileLock(partial(out) / "lock"), pytest.raises(UserError) as caught:
        killed_build.run(files, out, "lmdb", quiet)
    assert (caught.value.where, caught.value.code) == (str(out), "build-running")


def test_keys_that_a_format_cannot_hold_are_told_before_anything_is_written(tmp_path: Path) -> None:
    key = "/".join(["猫" * 60] * 3) + "/1"  # 545 bytes
    source = FolderSource(folder(tmp_path / "files", [key]), EXTENSIONS)
    with pytest.raises(UserError) as caught:
        made(source, tmp_path / "out", "lmdb")
    assert caught.value.code == "key-too-long"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files"]
    made(source, tmp_path / "out", "shards")
    assert open_local(tmp_path / "out", EXTENSIONS).keys("images") == [key]


# Plans.


def test_samples_that_lack_a_file_are_told_or_left_out(tmp_path: Path, files: Path) -> None:
    for i in (3, 7):
        (files / "maps" / f"{KEYS[i]}.png").unlink()
    source = FolderSource(files, EXTENSIONS)
    with pytest.raises(UserError) as caught:
        make_plan(source, list(EXTENSIONS), paired=True)
    assert (caught.value.where, caught.value.code) == (f"{files}/maps/{KEYS[3]}.png", "missing-file")
    assert "and 1 more" in caught.value.what
    kept = make_plan(source, list(EXTENSIONS), paired=True, remove_missing=True)
    assert kept.keys["images"] == kept.keys["maps"] == [key for i, key in enumerate(KEYS) if i not in (3, 7)]
    assert (kept.removed, len(kept)) == (2, 96)


def test_both_orders_have_every_file_once_from_any_place_on(files: Path) -> None:
    whole = make_plan(FolderSource(files, EXTENSIONS), list(EXTENSIONS))
    assert whole.is_grouped
    by_type, by_key = list(whole.iter_by_type()), list(whole.iter_by_key())
    assert by_type == [(kind, key) for kind in EXTENSIONS for key in KEYS]
    assert by_key == [(kind, key) for key in KEYS for kind in EXTENSIONS]
    for start in (1, 49, 50, 51, 99, 100):
        assert list(whole.iter_by_type(start)) == by_type[start:]
        assert list(whole.iter_by_key(start)) == by_key[start:]


def test_a_sequence_that_comes_twice_in_a_list_becomes_one(files: Path) -> None:
    only = ["s1/030", "s0/002", "s1/029", "s0/001"]
    chosen = make_plan(FolderSource(files, EXTENSIONS), list(EXTENSIONS), paired=True, only=only)
    assert chosen.keys["maps"] == ["s1/030", "s1/029", "s0/002", "s0/001"]
    assert chosen.group_sequences("maps") == {"s1": ["030", "029"], "s0": ["002", "001"]}
    with pytest.raises(UserError) as caught:
        make_plan(FolderSource(files, EXTENSIONS), list(EXTENSIONS), paired=True, only=[*only, "s0/002"])
    assert (caught.value.where, caught.value.code) == ("s0/002", "duplicate-key")
