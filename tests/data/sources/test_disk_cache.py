"""The cache on disk returns what was stored, never damaged data, and never exceeds its size."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images import write
from logs import logged

from imagier.data.sources.disk_cache import DiskCache, open_cache

KB = 1024
fork = multiprocessing.get_context("fork")


def entries(folder: Path) -> list[Path]:
    """The files of all entries."""
    return [path for path in folder.glob("imagier-cache/??/*") if path.is_file()]


def taken(folder: Path) -> int:
    """Bytes of all files below a folder, except those that vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def content(key: str, size: int) -> bytes:
    return random.Random(key).randbytes(size)


def elsewhere(work: Callable[[], object]) -> int:
    """Runs `work` in another process; returns its exit code."""
    process = fork.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def test_stored_data_are_found_by_every_process_that_uses_the_folder(tmp_path: Path) -> None:
    first = DiskCache(tmp_path, 100 * KB)
    assert first.get("a") is None
    elsewhere(lambda: DiskCache(tmp_path, 100 * KB).put("a", content("a", 5000)))
    first.put("猫/../b\n", b"")
    assert first.get("a") == content("a", 5000)
    assert DiskCache(tmp_path, 100 * KB).get("猫/../b\n") == b""
    assert first.get("b") is None


def test_it_never_exceeds_its_size(tmp_path: Path) -> None:
    bound = 64 * KB
    cache = DiskCache(tmp_path, bound)
    rng = random.Random(0)
    for i in range(200):
        cache.put(f"{i}", content(f"{i}", rng.choice([10, 3000, 9000, 30_000])))
        assert taken(tmp_path) <= bound
        assert cache.get(f"{i}") is not None
    assert taken(tmp_path) > bound / 2


def fill(folder: Path, bound: int, worker: int) -> None:
    cache = DiskCache(folder, bound)
    for i in range(60):
        key = f"{(worker * 7 + i) % 90}"
        found = cache.get(key)
        assert found in (None, content(key, 3000)), "an entry that was never stored"
        if found is None:
            cache.put(key, content(key, 3000))


def test_processes_that_share_it_do_not_exceed_its_size(tmp_path: Path) -> None:
    bound = 100 * KB
    workers = [fork.Process(target=fill, args=(tmp_path, bound, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    most = 0
    while any(worker.is_alive() for worker in workers):
        most = max(most, taken(tmp_path))
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert bound / 2 < most <= bound


def test_the_least_recently_used_entries_are_removed_first(tmp_path: Path) -> None:
    """At any time, all entries left were used after those that were removed."""
    cache = DiskCache(tmp_path, 80 * KB)
    used: list[str] = []
    rng = random.Random(1)
    for _ in range(150):
        key = f"{rng.randrange(30)}"
        if cache.get(key) is None:
            cache.put(key, content(key, 6000))
        used = [other for other in used if other != key] + [key]
        there = [cache._path(other).exists() for other in used]
        assert there == sorted(there)
        assert there[-8:] == [True] * len(there[-8:])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "zeros", "longer"])
def test_a_damaged_entry_is_missing_and_can_be_stored_again(tmp_path: Path, damage: str) -> None:
    cache = DiskCache(tmp_path, 100 * KB)
    cache.put("a", content("a", 5000))
    (path,) = entries(tmp_path)
    data = bytearray(path.read_bytes())
    data[1234] ^= 1
    damaged = {"flip": bytes(data), "cut": data[:2000], "empty": b"", "zeros": bytes(len(data)), "longer": data + b"x"}
    path.write_bytes(damaged[damage])
    assert cache.get("a") is None
    path.write_bytes(damaged[damage])
    assert (
        DiskCache(tmp_path, 100 * KB).get_part("a", 5000, 10, 20, lambda: [content("a", 5000)])
        == content("a", 5000)[10:30]
    )
    cache.put("a", content("a", 5000))
    assert cache.get("a") == content("a", 5000)


def test_data_larger_than_the_cache_are_not_stored(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 20 * KB)
    cache.put("small", b"small")
    cache.put("large", bytes(20 * KB))
    assert (cache.get("large"), cache.get("small")) == (None, b"small")
    assert cache.get_part("large", 20 * KB, 0, 10, lambda: pytest.fail("fetched for nothing")) is None


def test_files_of_the_user_are_never_removed(tmp_path: Path) -> None:
    mine = [write(tmp_path / name, bytes(30_000)) for name in ("holiday.jpg", "ab/cd", "imagier-cache/notes.txt")]
    cache = DiskCache(tmp_path, 20 * KB)
    for i in range(20):
        cache.put(f"{i}", content(f"{i}", 6000))
    assert all(path.stat().st_size == 30_000 for path in mine)


def test_a_smaller_size_applies_from_the_start(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100 * KB)
    for i in range(10):
        cache.put(f"{i}", content(f"{i}", 6000))
    smaller = DiskCache(tmp_path, 30 * KB)
    assert taken(tmp_path) <= 30 * KB
    assert (smaller.get("9"), smaller.get("0")) == (content("9", 6000), None)


@pytest.mark.parametrize("lost", ["everything", "the count", "a count that is none"])
def test_it_works_after_someone_removed_its_files(tmp_path: Path, lost: str) -> None:
    cache = DiskCache(tmp_path, 30 * KB)
    cache.put("a", content("a", 6000))
    if lost == "everything":
        shutil.rmtree(tmp_path / "imagier-cache")
    else:
        (tmp_path / "imagier-cache" / "taken").unlink()
    if lost == "a count that is none":
        (tmp_path / "imagier-cache" / "taken").write_bytes(b"")
    for i in range(10):
        cache.put(f"{i}", content(f"{i}", 6000))
        assert taken(tmp_path) <= 30 * KB
    assert cache.get("9") == content("9", 6000)


# Large entries


def test_a_part_is_read_from_an_entry_that_is_fetched_once(tmp_path: Path) -> None:
    data = content("shard", 50_000)
    fetched = tmp_path / "fetched"

    def fetch() -> Iterator[bytes]:
        with fetched.open("a") as file:
            file.write("once ")
        return (data[at : at + 7000] for at in range(0, len(data), 7000))

    def ask() -> None:
        cache = DiskCache(tmp_path, 100 * KB)
        for offset, length in ((0, 10), (49_990, 10), (49_990, 100), (20_000, 0), (123, 40_000)):
            assert cache.get_part("shard", len(data), offset, length, fetch) == data[offset : offset + length]

    workers = [fork.Process(target=ask) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert fetched.read_text() == "once "


def test_an_incomplete_entry_is_not_used(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100 * KB)
    assert cache.get_part("shard", 9000, 0, 10, lambda: [bytes(5000)]) is None
    assert cache.get_part("shard", 9000, 0, 10, lambda: [content("shard", 9000)]) == content("shard", 9000)[:10]


def test_a_process_killed_while_storing_leaves_no_readable_entry_and_its_space_is_reused(
    tmp_path: Path,
) -> None:
    def die() -> Iterator[bytes]:
        yield content("a", 5000)
        os.kill(os.getpid(), signal.SIGKILL)

    cache = DiskCache(tmp_path, 40 * KB)
    assert elsewhere(lambda: cache.get_part("a", 9000, 0, 10, die)) == -signal.SIGKILL
    assert len(entries(tmp_path)) == 1  # unfinished
    assert cache.get("a") is None
    for i in range(20):
        cache.put(f"{i}", content(f"{i}", 9000))
    assert taken(tmp_path) <= 40 * KB
    assert sum(cache.get(f"{i}") is not None for i in range(20)) == 3


def test_a_kill_right_before_a_file_is_made_leaves_no_uncounted_file(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 40 * KB)
    cache.put("a", content("a", 9000))

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def store() -> None:
        cache._write_taken = die  # type: ignore[method-assign, assignment]
        cache.put("b", content("b", 9000))

    assert elsewhere(store) == -signal.SIGKILL
    assert len(entries(tmp_path)) == 1


# Folders that cannot be written


def logged_by_two_processes(folder: Path, log: Path, *, bytes_of_a_file: int | None = None) -> list[str]:
    """What two processes log that fill a cache while the size of files is limited."""

    def use(cache: DiskCache) -> None:
        for i in range(3):
            cache.put(f"{i}", bytes(9000))
            assert cache.get(f"{i}") is None
            assert cache.get_part(f"{i}", 9000, 0, 10, lambda: [bytes(9000)]) is None

    def fill_limited() -> None:
        logging.getLogger("imagier").addHandler(logging.FileHandler(log))
        if bytes_of_a_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_a_file, bytes_of_a_file))
        cache = DiskCache(folder, 100 * KB)
        use(cache)
        assert elsewhere(lambda: use(cache)) == 0

    assert elsewhere(fill_limited) == 0
    return log.read_text().splitlines()


def test_a_full_disk_is_logged_once_and_existing_entries_are_still_read(tmp_path: Path) -> None:
    DiskCache(tmp_path, 100 * KB).put("before", b"as it was")
    (line,) = logged_by_two_processes(tmp_path, tmp_path / "log", bytes_of_a_file=5000)
    assert line.startswith(f"{tmp_path}/imagier-cache: ") and "File too large" in line
    assert DiskCache(tmp_path, 100 * KB).get("before") == b"as it was"
    assert len(entries(tmp_path)) == 1


def test_a_folder_that_cannot_be_made_is_logged_once(tmp_path: Path) -> None:
    write(tmp_path / "file")
    (line,) = logged_by_two_processes(tmp_path / "file" / "folder", tmp_path / "log")
    assert line.startswith(f"{tmp_path}/file/folder/imagier-cache: ") and "Not a directory" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_still_read(tmp_path: Path) -> None:
    DiskCache(tmp_path, 100 * KB).put("a", b"there")
    for path in [*tmp_path.rglob("*"), tmp_path]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    with logged() as lines:
        cache = DiskCache(tmp_path, 100 * KB)
        cache.put("b", b"new")
    assert (cache.get("a"), cache.get("b"), len(lines)) == (b"there", None, 1)


def test_sources_with_the_same_cache_folder_share_a_cache(tmp_path: Path) -> None:
    assert open_cache(str(tmp_path), 1000) is open_cache(str(tmp_path), 1000)
    assert open_cache(str(tmp_path), 1000) is not open_cache(str(tmp_path), 2000)
