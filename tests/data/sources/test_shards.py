"""Tar shards: webdataset reads ours, we read its, and malicious archives are refused."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from stores import EXTENSIONS, as_somebody, catch, contents, folder, read_there, tar

from imagier.data.sources.folder import FolderSource
from imagier.data.sources.shard_files import MOST_OPEN, LocalFiles
from imagier.data.sources.shard_names import INDEX, member_name, parse_member
from imagier.data.sources.shards import ShardsSource
from imagier.tools.stores.engine import build
from imagier.tools.stores.plan import Plan, make_plan
from imagier.tools.stores.shard_writer import ShardWriter

KEYS = ["./top", "a/0001", "a/0002", "b/deep/v1.0 final", "b/猫", "b/100%", "b/x%2Ey"]


def shards(root: Path, extensions: dict[str, str] = EXTENSIONS) -> ShardsSource:
    return ShardsSource(LocalFiles(root), extensions)


def built(tmp_path: Path, keys: Sequence[str] = KEYS, *, shard_bytes: int = 6000) -> tuple[Path, FolderSource]:
    """A store of shards, and the folder that it was made from."""
    source = FolderSource(folder(tmp_path / "files", keys), EXTENSIONS)
    build(
        source,
        make_plan(source, list(EXTENSIONS)),
        tmp_path / "store",
        lambda f, p: ShardWriter(f, p, shard_bytes=shard_bytes),
    )
    return tmp_path / "store", source


def refusal(root: Path, extensions: dict[str, str] = EXTENSIONS) -> tuple[str, str]:
    """Place and code of the error for a store that cannot be opened."""
    error = catch(lambda: shards(root, extensions))
    return error.where, error.code


def with_webdataset(*paths: Path) -> list[dict[str, Any]]:
    return list(webdataset.WebDataset([str(path) for path in paths], shardshuffle=False))


# Exchange with webdataset


def test_webdataset_reads_the_samples_that_we_write(tmp_path: Path) -> None:
    root, source = built(tmp_path)
    paths = sorted(root.glob("*.tar"))
    assert len(paths) > 1
    samples = with_webdataset(*paths)
    assert len(samples) == len(KEYS)
    found = {}
    for sample in samples:
        key, _ = parse_member(f"{sample['__key__']}.x") or ("", "")
        assert set(sample) == {"__key__", "__url__", "__local_path__", "images.jpg", "maps.png"}
        found |= {("images", key): sample["images.jpg"], ("maps", key): sample["maps.png"]}
    assert found == contents(source)


@pytest.mark.parametrize("digits", [4, 120])  # longer names stand in headers of their own
def test_we_read_the_samples_that_webdataset_writes(tmp_path: Path, digits: int) -> None:
    rng = np.random.default_rng(0)
    samples = [
        {"__key__": f"seq/猫{i:0{digits}}", "images.jpg": rng.bytes(100 * i), "maps.png": rng.bytes(700), "json": b"{}"}
        for i in range(7)
    ]
    with webdataset.ShardWriter(str(tmp_path / "set-%02d.tar"), maxcount=3, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)
    source = shards(tmp_path)
    assert source.shards("images") == source.shards("maps") == [3, 3, 1]
    assert source.keys("maps") == [sample["__key__"] for sample in samples]
    for sample in samples:
        assert source.read("images", sample["__key__"]) == sample["images.jpg"]
        assert source.read("maps", sample["__key__"]) == sample["maps.png"]


def test_plain_shards_are_read_if_the_extension_determines_the_type(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i in range(3):
            writer.write({"__key__": f"{i:06}", "jpg": b"image %d" % i, "png": b"map %d" % i, "cls": b"7"})
    source = shards(tmp_path)
    assert source.keys("images") == source.keys("maps") == ["./000000", "./000001", "./000002"]
    assert [source.read("images", "./000001"), source.read("maps", "./000002")] == [b"image 1", b"map 2"]
    for extensions in ({"images": "png", "maps": "png"}, {"images": "webp"}):
        error = catch(lambda extensions=extensions: shards(tmp_path, extensions))
        assert (error.where, error.code) == (str(tmp_path), "missing-input-type")
        assert "'images'" in error.what and "cls, jpg, png" in error.advice


def test_members_of_a_type_with_another_extension_are_read(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", [("s/1.images.png", b"a"), ("s/1.maps.PNG", b"b")])
    source = shards(tmp_path)
    assert [source.extension("images"), source.extension("maps")] == ["png", "png"]
    assert source.read("maps", "s/1") == b"b"


@pytest.mark.parametrize("key", [*KEYS, "a.b.c/d.e.f", "./.hidden", "s/ ", "s/__x__", "s/a%b.c%25"])
def test_a_key_is_recovered_from_its_member_and_webdataset_splits_it_at_the_same_dot(key: str) -> None:
    member = member_name(key, "images.jpg")
    assert parse_member(member) == parse_member(f"./{member}") == (key, "images.jpg")
    name, field = webdataset.tariterators.base_plus_ext(member)
    assert (f"{name}.{field}", field) == (member, "images.jpg")


# Order and location


def test_keys_and_bytes_equal_those_of_the_folder_in_order(tmp_path: Path) -> None:
    root, source = built(tmp_path)
    assert list(contents(shards(root)).items()) == list(contents(source).items())


def test_shards_have_about_the_size_asked_for_and_their_counts_add_up(tmp_path: Path) -> None:
    root, _ = built(tmp_path, [f"s/{i:03}" for i in range(60)], shard_bytes=20_000)
    sizes = [path.stat().st_size for path in sorted(root.glob("*.tar"))]
    assert all(20_000 <= size < 20_000 + 2 * 10_240 for size in sizes[:-1])
    counts = shards(root).shards("images")
    assert len(counts) == len(sizes) and sum(counts) == 60
    for path, place in zip(sorted(root.glob("*.tar")), np.cumsum([0, *counts[:-1]])):
        with tarfile.open(path) as archive:
            assert archive.getnames()[:2] == [f"s/{place:03}.images.jpg", f"s/{place:03}.maps.png"]


def test_unpaired_types_are_in_separate_shards(tmp_path: Path) -> None:
    folder(tmp_path / "files", ["a/1", "a/2", "b/1"], {"images": "jpg"})
    folder(tmp_path / "files", ["a/2", "c/1"], {"maps": "png"})
    source = FolderSource(tmp_path / "files", EXTENSIONS)
    root = tmp_path / "store"
    build(source, make_plan(source, ["images", "maps"]), root, lambda f, p: ShardWriter(f, p, shard_bytes=10**6))
    made = shards(root)
    assert [made.keys("images"), made.keys("maps")] == [["a/1", "a/2", "b/1"], ["a/2", "c/1"]]
    assert [made.shards("images"), made.shards("maps")] == [[3], [2]]
    assert contents(made) == contents(source)


# The index


def test_a_store_is_the_same_with_and_without_its_index(tmp_path: Path) -> None:
    root, _ = built(tmp_path)
    with_index = contents(shards(root))
    (root / INDEX).unlink()
    assert list(contents(shards(root)).items()) == list(with_index.items())


def files_read(root: Path) -> set[str]:
    """The files from which a store reads when it is opened."""
    names = set()

    class Watched(LocalFiles):
        def read(self, name: str, offset: int, length: int) -> bytes:
            names.add(name)
            return super().read(name, offset, length)

    ShardsSource(Watched(root), EXTENSIONS)
    return names


def test_the_index_is_used_instead_of_the_headers(tmp_path: Path) -> None:
    root, _ = built(tmp_path)
    assert files_read(root) == {INDEX}
    (root / INDEX).write_bytes(compressed_index(root))
    assert len(files_read(root)) > 1, "a compressed one, which could be of any size, is not unpacked"


def test_the_index_of_other_shards_is_ignored(tmp_path: Path) -> None:
    root, _ = built(tmp_path)
    tar(root / "shard-000000.tar", [("new/1.images.jpg", b"new"), ("new/1.maps.png", b"map")])
    assert shards(root).keys("images")[0] == "new/1"
    tar(root / "shard-999999.tar", [("last/1.images.jpg", b"last"), ("last/1.maps.png", b"map")])
    assert shards(root).keys("images")[-1] == "last/1"


def changed_index(root: Path, **changes: np.ndarray) -> bytes:
    file = io.BytesIO()
    with np.load(root / INDEX) as arrays:
        np.savez(file, **{**arrays, **changes})
    return file.getvalue()


def compressed_index(root: Path) -> bytes:
    file = io.BytesIO()
    with np.load(root / INDEX) as arrays:
        np.savez_compressed(file, **{**arrays, "bomb": np.zeros(10**7, np.uint8)})
    return file.getvalue()


def swollen_index(root: Path) -> bytes:
    """An index with an array that is larger than any memory."""
    file = io.BytesIO()
    with np.load(root / INDEX) as arrays:
        np.savez(file, **arrays)
    with zipfile.ZipFile(file, "a") as archive:
        header = io.BytesIO()
        shape = {"shape": (10**15,), "fortran_order": False, "descr": "<i8"}
        np.lib.format.write_array_header_1_0(header, shape)
        archive.writestr("offset0.npy", header.getvalue())
    return file.getvalue()


def odd_header(root: Path, text: bytes) -> bytes:
    """An index with a malformed array header, which numpy parses as Python."""
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(root / INDEX) as whole, zipfile.ZipFile(file, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, header if name == "ends0.npy" else whole.read(name))
    return file.getvalue()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: b"",
        lambda root: b"PK\x03\x04 not really",
        lambda root: (root / INDEX).read_bytes()[:-30],
        lambda root: (root / INDEX).read_bytes().replace(b'"format":1', b'"format":9'),
        lambda root: pickle.dumps(np.zeros(3)),
        lambda root: changed_index(root, header=np.frombuffer(b"[]", np.uint8)),
        lambda root: changed_index(root, header=np.frombuffer(b'{"format":1,"shards":{},"fields":[]}', np.uint8)),
        lambda root: changed_index(root, offset0=np.full(len(KEYS), 10**12)),
        lambda root: changed_index(root, length1=np.full(len(KEYS), 10**12)),
        lambda root: changed_index(root, shard0=np.full(len(KEYS), 99)),
        lambda root: changed_index(root, shard0=np.full(len(KEYS), -1)),
        lambda root: changed_index(root, offset0=np.zeros(2, np.int64)),
        lambda root: changed_index(root, ends0=np.zeros(len(KEYS), np.int64)),
        lambda root: changed_index(root, offset0=np.array([{}] * len(KEYS), object)),
        lambda root: changed_index(root, keys0=np.full((root / INDEX).stat().st_size, 255, np.uint8)),
        lambda root: (root / INDEX).read_bytes().replace(b"./top", b"../op"),
        lambda root: changed_index(
            root, keys0=np.frombuffer("".join(KEYS).replace("./top", "../op").encode(), np.uint8)
        ),
        compressed_index,
        swollen_index,
        lambda root: odd_header(root, b"{'descr': ("),
        lambda root: odd_header(root, b"'''text"),
        lambda root: odd_header(root, b"a\n  b\n c"),
        lambda root: odd_header(root, b"{'descr': '<i8', 'fortran_order': False, 'shape': (%d,)}" % 10**30),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_damaged_or_malicious_index_is_ignored(tmp_path: Path, spoil: Any) -> None:
    root, source = built(tmp_path)
    (root / INDEX).write_bytes(spoil(root))
    assert contents(shards(root)) == contents(source)


# Damaged and malicious archives


def header(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("/etc/passwd.images.jpg", {}),
        ("../../a.images.jpg", {}),
        ("a/../../b.images.jpg", {}),
        ("./../b.images.jpg", {}),
        ("a.images.jpg", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("a.images.jpg", {"type": tarfile.LNKTYPE, "linkname": "../b"}),
        ("a.images.jpg", {"type": tarfile.CHRTYPE}),
        ("a.images.jpg", {"type": tarfile.FIFOTYPE}),
        ("line\nbreak", {"type": tarfile.SYMTYPE}),
    ],
)
def test_links_devices_and_unsafe_paths_are_refused(tmp_path: Path, name: str, fields: dict[str, Any]) -> None:
    tar(tmp_path / "a.tar", [("s/1.images.jpg", b"a"), header(name, **fields), ("s/1.maps.png", b"a")])
    assert refusal(tmp_path) == (f"{tmp_path}/a.tar", "unsafe-member")


def test_folders_and_files_without_a_type_are_ignored(tmp_path: Path) -> None:
    members = [header("s", type=tarfile.DIRTYPE), ("README", b"?"), ("s/1.images.jpg", b"a"), ("s/1.maps.png", b"b")]
    assert shards(tar(tmp_path / "a.tar", members).parent).keys("images") == ["s/1"]


def oversized(size: int, member_type: bytes = tarfile.REGTYPE) -> bytes:
    """A header that claims that so many bytes follow."""
    info = header("s/1.images.jpg", type=member_type)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive" * 1000,
        oversized(2**40),
        oversized(2**62),
        oversized(-1024),
        oversized(2**40, tarfile.XHDTYPE),
        oversized(2**40, tarfile.GNUTYPE_LONGNAME),
        oversized(-512, tarfile.XHDTYPE),
        oversized(512, tarfile.XHDTYPE)[:1024] * 2000 + bytes(1024),  # a header of a header of a header ...
    ],
    ids=["empty", "else", "2**40", "2**62", "negative", "pax", "long name", "negative pax", "nested"],
)
def test_wrong_sizes_in_an_archive_are_an_error_in_no_time(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    assert refusal(tmp_path) == (f"{tmp_path}/a.tar", "damaged-shard")


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 1536, 2560, 3072])
def test_an_archive_that_was_cut_off_anywhere_is_an_error(tmp_path: Path, cut: int) -> None:
    path = tar(tmp_path / "a.tar", [("s/1.images.jpg", bytes(500)), ("s/1.maps.png", bytes(600))])
    whole = 2 * 512 + 512 + 1024
    assert path.read_bytes()[whole:].strip(b"\0") == b""
    os.truncate(path, min(cut, whole))
    assert refusal(tmp_path) == (str(path), "damaged-shard")


def test_a_damaged_header_in_the_middle_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [(f"s/{i}.images.jpg", bytes(500)) for i in range(9)])
    data = bytearray(path.read_bytes())
    data[4 * 1024 + 3] ^= 1
    path.write_bytes(data)
    assert refusal(tmp_path, {"images": "jpg"}) == (str(path), "damaged-shard")


@pytest.mark.parametrize("names", [["a.tar", "a.tar"], ["a.tar", "b.tar"]])
def test_a_repeated_key_is_an_error(tmp_path: Path, names: list[str]) -> None:
    both = [("s/1.images.jpg", b"x"), ("s/2.images.jpg", b"y"), ("s/1.images.jpg", b"z")]
    tar(tmp_path / names[1], both[1:])
    tar(tmp_path / names[0], both if names[0] == names[1] else both[:1])
    error = catch(lambda: shards(tmp_path, {"images": "jpg"}))
    assert (error.where, error.code) == (str(tmp_path), "repeated-key")
    assert "s/1.images.jpg" in error.what


def test_compressed_shards_and_no_shards_are_errors(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (str(tmp_path), "no-shards")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    error = catch(lambda: shards(tmp_path))
    assert (error.where, error.code) == (str(tmp_path), "no-shards")
    assert "a.tar.gz" in error.advice
    assert refusal(tmp_path / "nowhere") == (f"{tmp_path}/nowhere", "unreadable-folder")


def test_a_shard_that_changes_or_vanishes_is_an_error(tmp_path: Path) -> None:
    root, _ = built(tmp_path)
    source = shards(root)
    last = source.keys("maps")[-1]
    path = sorted(root.glob("*.tar"))[-1]
    where = f"{path}[{member_name(last, 'maps.png')}]"
    assert source.where("maps", last) == where
    os.truncate(path, 0)
    error = catch(lambda: source.read("maps", last))
    assert (error.where, error.code) == (where, "damaged-shard")
    path.unlink()
    error = catch(lambda: pickle.loads(pickle.dumps(source)).read("maps", last))
    assert (error.where, error.code) == (str(path), "unreadable-file")
    error = catch(lambda: source.read("maps", "s/nothing"))
    assert (error.where, error.code) == (f"{root}/*.tar[s/nothing.maps.png]", "missing-file")


def test_a_file_is_complete_if_the_system_reads_less_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux reads at most 2 GiB at a time, some network file systems less."""
    data = bytes(range(250))
    tar(tmp_path / "a.tar", [("s/1.images.jpg", data), ("s/2.images.jpg", b"")])
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, length, offset: pread(file, min(length, 99), offset))
    source = shards(tmp_path, {"images": "jpg"})
    assert [source.read("images", "s/1"), source.read("images", "s/2")] == [data, b""]
    assert LocalFiles(tmp_path).read("a.tar", 512, 200) == data[:200]


def test_keys_of_types_are_compared_once_and_not_per_file(tmp_path: Path) -> None:
    """Comparing all keys for each file would take hours."""
    compared = []

    class Keys(list[str]):
        def __eq__(self, other: object) -> bool:
            compared.append(1)
            return super().__eq__(other)

    writer = ShardWriter(tmp_path, Plan({"images": Keys(KEYS), "maps": Keys(KEYS)}, EXTENSIONS, False), shard_bytes=10)
    for input_type, key in writer.iter_files(0):
        if writer.should_commit(input_type):
            writer.commit()
        writer.add(input_type, key, bytes(20))
    writer.close()
    assert len(compared) == 1


def test_a_shard_without_permission_is_an_error(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("s/1.images.jpg", b"x")])
    path.chmod(0)
    with as_somebody(path):
        assert refusal(tmp_path) == (str(path), "unreadable-file")


# Processes


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_other_processes_can_read_an_open_source(tmp_path: Path, method: str) -> None:
    root, _ = built(tmp_path)
    source = shards(root)
    expected = [source.read("images", key) for key in source.keys("images")]  # open here, before the others come
    with multiprocessing.get_context(method).Pool(2) as pool:
        read = pool.map(read_there, [(source, key) for key in source.keys("images")] * 4, chunksize=1)
    assert [data for _, data in read] == expected * 4
    assert os.getpid() not in {pid for pid, _ in read}


def test_only_a_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    count = MOST_OPEN + 10
    for i in range(count):
        tar(tmp_path / f"{i:03}.tar", [(f"s/{i}.images.jpg", b"%d" % i)])
    source = shards(tmp_path, {"images": "jpg"})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        assert [source.read("images", f"s/{i}") for i in range(count)] == [b"%d" % i for i in range(count)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + MOST_OPEN


def test_a_shard_stays_open_while_it_is_read_even_if_it_is_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(MOST_OPEN + 2):
        tar(tmp_path / f"{i:03}.tar", [(f"s/{i}.images.jpg", b"%d" % i)])
    source = shards(tmp_path, {"images": "jpg"})
    pread = os.pread

    def as_other_threads_would(descriptor: int, length: int, offset: int) -> bytes:
        monkeypatch.setattr(os, "pread", pread)
        for i in range(1, MOST_OPEN + 2):
            assert source.read("images", f"s/{i}") == b"%d" % i
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", as_other_threads_would)
    assert source.read("images", "s/0") == b"0"
