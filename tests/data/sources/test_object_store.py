"""Object stores behind real servers give the right objects, also after failures."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from http_server import Faulty, HttpServer
from images import noise, png, write
from s3_server import S3Server, credentials_for
from small_config import TEXT, read, swap
from small_config import write as write_config
from small_data import build, codec_for
from stores import NO_RETRY, catch

from imagier.cli import main
from imagier.data.datasets.paired_images import Dataset
from imagier.data.loading.loader import Loader
from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.folder import FolderSource
from imagier.data.sources.fsspec_store import FsspecStore
from imagier.data.sources.object_store import ObjectStoreSource
from imagier.data.sources.remote import ObjectStore, RemoteFolder
from imagier.data.sources.retry import RetryPolicy
from imagier.data.sources.s3 import S3Store
from imagier.data.sources.shard_files import LocalFiles, ShardFiles
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source
from imagier.recipe import Position
from imagier.run import build_data

pytestmark = pytest.mark.usefixtures("no_credentials")

EXTENSIONS = {"images": "png", "seg_maps": "png"}
QUICK = RetryPolicy(total_s=20, first_s=0.01, longest_s=0.1)


MakeStore = Callable[[str], ObjectStore]
"""Opens the folder of a bucket, such as "bucket/set"."""


@pytest.fixture(scope="module")
def http_server(root: Path) -> Iterator[HttpServer]:
    """A web server of the same folder."""
    server = HttpServer(root)
    yield server
    server.kill()


@pytest.fixture(params=["s3", "http", "memory"])
def make_store(request: pytest.FixtureRequest, root: Path) -> Iterator[MakeStore]:
    """The bucket in each kind of store."""
    if request.param == "s3":
        server = request.getfixturevalue("server")
        yield lambda name: S3Store(name, server.credentials, QUICK)
    elif request.param == "http":
        url = request.getfixturevalue("http_server").url
        yield lambda name: FsspecStore(f"{url}/{name}", {}, QUICK)
    else:
        memory = fsspec.filesystem("memory")
        memory.put(str(root / "bucket"), "/bucket", recursive=True)
        yield lambda name: FsspecStore(f"memory://{name}", {}, QUICK)
        memory.rm("/bucket", recursive=True)


def index(config: Path, folder: Path, *flags: str) -> int:
    """Runs `imagier data index`."""
    return main(["data", "index", "--data_root", str(folder), "--config", str(config), *flags])


def s3_source(server: S3Server, name: str = "bucket/set") -> ObjectStoreSource:
    return ObjectStoreSource(RemoteFolder(S3Store(name, server.credentials, QUICK)), EXTENSIONS)


def source_of(store: ObjectStore, cache: DiskCache | None = None) -> ObjectStoreSource:
    return ObjectStoreSource(RemoteFolder(store, cache), EXTENSIONS)


def loader(source: Source, num_workers: int = 0) -> Loader:
    """Shuffled, augmented batches."""
    kinds = [codec_for(name="images", ext="png"), codec_for(name="seg_maps", ext="png", is_mask=True, num_classes=4)]
    samples = build(
        Dataset, [source], codecs=kinds, augmentations={"resize_h_w": "8, 8", "random_crop_h_w": "4, 4"}, seed=3
    )
    finish = lambda batch: batch  # noqa: E731
    return Loader(samples, 2, device=torch.device("cpu"), finish=finish, seed=3, shuffle=True, num_workers=num_workers)


def content(stream: Iterator[tuple[Any, Position]], steps: int) -> list[tuple[dict[str, list], dict, Position]]:
    taken = [next(stream) for _ in range(steps)]
    return [({n: t.tolist() for n, t in batch.tensors.items()}, batch.keys, position) for batch, position in taken]


# Objects


@pytest.mark.parametrize("name", ["bucket/set", "bucket/set/", "bucket/unpaired"])
def test_it_is_the_same_as_the_uploaded_folder(root: Path, make_store: MakeStore, name: str) -> None:
    there = source_of(make_store(name))
    here = FolderSource(root / name, EXTENSIONS)
    for input_type in EXTENSIONS:
        assert there.keys(input_type) == here.keys(input_type)
        assert there.shards(input_type) == [len(here.keys(input_type))]
        assert there.extension(input_type) == "png"
        assert [there.read(input_type, key) for key in there.keys(input_type)] == [
            here.read(input_type, key) for key in here.keys(input_type)
        ]


@pytest.mark.parametrize(
    ("name", "filenames", "objects"),
    [
        ("made/base", {"base/s": ["1", "2"], "base/s/t": ["1"]}, ["images/s/1", "images/s/2", "images/s/t/1"]),
        ("made", {"s": ["1"]}, ["images/s/1"]),
        ("made/base", {"base": ["1"]}, ["images/1"]),
        ("made/base", {"base/.": ["1"]}, ["images/1"]),
        ("made/base", {".": ["1"], "base": ["2"]}, ["images/1", "images/base/2"]),
        ("made/base", {"based/s": ["1"], "base/s": ["2"]}, ["images/based/s/1", "images/base/s/2"]),
        ("made/a/base", {"base/s": ["1"]}, ["images/s/1"]),
        ("made/a/base", {"a/base/s": ["1"]}, ["images/s/1"]),
        ("made/base", {"base/s___001___": ["1"], "base/s___002___": ["2"]}, ["images/s/1", "images/s/2"]),
    ],
)
def test_lists_of_the_reference_lead_to_its_objects(
    server: S3Server, name: str, filenames: dict[str, list[str]], objects: list[str]
) -> None:
    """Each sequence begins with the name of the base; in the object's key, the type comes after it."""
    base = name.partition("/")[2]
    files = {f"{base}/{key}.jpg".lstrip("/"): key.encode() for key in objects}
    lists = {"all_filenames.json": filenames, "metadata.json": {"images": "jpg"}}
    files |= {f"{base}/{key}".lstrip("/"): json.dumps(tree).encode() for key, tree in lists.items()}
    bucket = server.new_bucket(files)
    source = ObjectStoreSource(RemoteFolder(S3Store(f"{bucket}/{base}", server.credentials, QUICK)), {"images": "png"})
    keys = source.keys("images")
    assert [source.read("images", key).decode() for key in keys] == objects
    assert [source.where("images", key) for key in keys] == [
        f"s3://{bucket}/{base and base + '/'}{key}.jpg" for key in objects
    ]
    assert source.extension("images") == "jpg"


def test_a_sequence_with_the_name_of_the_root_is_kept_if_types_are_unpaired(server: S3Server) -> None:
    lists = {"all_filenames.json": {"images": {"cats": ["1"]}}, "metadata.json": {"images": "jpg"}}
    files = {f"cats/{name}": json.dumps(tree).encode() for name, tree in lists.items()}
    bucket = server.new_bucket({**files, "cats/images/cats/1.jpg": b"a cat"})
    source = ObjectStoreSource(RemoteFolder(S3Store(f"{bucket}/cats", server.credentials, NO_RETRY)), {"images": "jpg"})
    assert {key: source.read("images", key) for key in source.keys("images")} == {"cats/1": b"a cat"}


@pytest.mark.parametrize("store_name", ["s3", "fsspec"])
def test_a_sequence_with_the_name_of_the_bucket_is_kept_if_the_root_is_the_whole_bucket(
    server: S3Server, store_name: str
) -> None:
    bucket = server.new_bucket({}) if store_name == "s3" else "whole-bucket"
    files = {
        "all_filenames.json": json.dumps({bucket: ["1"]}).encode(),
        "metadata.json": b'{"images": "jpg"}',
        f"images/{bucket}/1.jpg": b"cat",
    }
    for name, data in files.items():
        if store_name == "s3":
            server.s3.put_object(Bucket=bucket, Key=name, Body=data)
        else:
            fsspec.filesystem("memory").pipe(f"/{bucket}/{name}", data)
    store: ObjectStore = (
        S3Store(bucket, server.credentials, NO_RETRY)
        if store_name == "s3"
        else FsspecStore(f"memory://{bucket}", {}, NO_RETRY)
    )
    source = ObjectStoreSource(RemoteFolder(store), {"images": "jpg"})
    assert {key: source.read("images", key) for key in source.keys("images")} == {f"{bucket}/1": b"cat"}


def test_training_gets_the_same_batches_as_from_the_folder(root: Path, make_store: MakeStore) -> None:
    """Also with workers, forked after this process has used the store."""
    expected = content(loader(FolderSource(root / "bucket" / "set", EXTENSIONS)).stream(Position(1, 2)), 9)
    source = source_of(make_store("bucket/set"))
    for num_workers in (0, 2):
        assert content(loader(source, num_workers).stream(Position(1, 2)), 9) == expected


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("store_name", ["s3", "http"])
def test_workers_that_are_not_forked_get_the_same_batches(
    root: Path, request: pytest.FixtureRequest, server: S3Server, http_server: HttpServer, store_name: str, method: str
) -> None:
    request.addfinalizer(partial(multiprocessing.set_start_method, multiprocessing.get_start_method(), force=True))
    multiprocessing.set_start_method(method, force=True)
    store = (
        S3Store("bucket/set", server.credentials, QUICK)
        if store_name == "s3"
        else FsspecStore(f"{http_server.url}/bucket/set", {}, QUICK)
    )
    expected = content(loader(FolderSource(root / "bucket" / "set", EXTENSIONS)).stream(Position(1, 2)), 9)
    stream = loader(source_of(store), 2).stream(Position(1, 2))
    assert content(stream, 9) == expected
    stream.close()


def test_threads_share_a_source(root: Path, make_store: MakeStore) -> None:
    source = source_of(make_store("bucket/set"))
    keys = source.keys("images") * 3
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda key: source.read("images", key), keys))
    assert found == [(root / "bucket" / "set" / "images" / f"{key}.png").read_bytes() for key in keys]


def test_a_source_can_be_sent_to_a_process_that_is_not_forked(make_store: MakeStore, tmp_path: Path) -> None:
    source = source_of(make_store("bucket/set"), DiskCache(tmp_path, 10**6))
    source.read("images", source.keys("images")[0])
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read("images", key) for key in copy.keys("images")] == [
        source.read("images", key) for key in source.keys("images")
    ]


# Failing servers


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("store_name", ["s3", "http"])
def test_a_server_that_restarts_within_an_epoch_costs_no_sample(root: Path, store_name: str, num_workers: int) -> None:
    if store_name == "s3":
        server: S3Server | HttpServer = (of_s3 := S3Server(root))
        store: ObjectStore = S3Store("bucket/set", of_s3.credentials, QUICK)
    else:
        server = web = HttpServer(root)
        store = FsspecStore(f"{web.url}/bucket/set", {}, QUICK)
    expected = content(loader(FolderSource(root / "bucket" / "set", EXTENSIONS)).stream(Position()), 12)
    stream = loader(source_of(store), num_workers).stream(Position())
    first = content(stream, 2)
    server.kill()
    server.start()  # up in a second or so; nobody waits for it but the requests
    assert first + content(stream, 10) == expected
    stream.close()
    server.kill()


@pytest.mark.parametrize(
    ("file", "data", "code"),
    [
        ("all_filenames.json", b"{", "not-json"),
        ("all_filenames.json", b"[1]", "bad-index"),
        ("metadata.json", b'{"images": 1}', "bad-index"),
        ("metadata.json", b'{"images": "png"}', "missing-input-type"),
        ("all_filenames.json", b"{}", "no-files"),
        ("all_filenames.json", b'{"../x": ["a"]}', "bad-key"),
    ],
)
def test_malformed_lists_are_refused(server: S3Server, file: str, data: bytes, code: str) -> None:
    good = {"all_filenames.json": b'{"s": ["a"]}', "metadata.json": b'{"images": "png", "seg_maps": "png"}'}
    bucket = server.new_bucket({f"set/{name}": content for name, content in {**good, file: data}.items()})
    error = catch(lambda: s3_source(server, f"{bucket}/set"))
    named = "all_filenames.json" if code == "missing-input-type" else file
    assert (error.where, error.code) == (f"s3://{bucket}/set/{named}", code)


# The cache


def test_a_second_read_comes_from_the_cache(root: Path, tmp_path: Path, server: S3Server) -> None:
    way = Faulty(server.port, [])
    source = source_of(S3Store("bucket/set", credentials_for(way.port), NO_RETRY), DiskCache(tmp_path, 10**6))
    here = FolderSource(root / "bucket" / "set", EXTENSIONS)
    for expected_requests in (2 + 24, 2 + 24):
        for input_type in EXTENSIONS:
            assert [source.read(input_type, key) for key in source.keys(input_type)] == [
                here.read(input_type, k) for k in here.keys(input_type)
            ]
        assert len(way.requests) == expected_requests
    damaged = sorted(path for path in tmp_path.rglob("??/*") if path.is_file())[:3]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-7])
    assert content(loader(source).stream(Position()), 6) == content(loader(here).stream(Position()), 6)
    assert len(way.requests) == expected_requests + len(damaged)
    way.close()


def test_objects_of_the_same_name_in_two_buckets_are_cached_separately(tmp_path: Path, server: S3Server) -> None:
    cache = DiskCache(tmp_path, 10**6)
    for data in (b"first", b"second"):
        folder = remote(server, f"{server.new_bucket({'set/a': data})}/set", cache)
        assert [folder.fetch("a"), folder.fetch("a")] == [data] * 2


# Tar shards


def remote(server: S3Server, name: str, cache: DiskCache | None = None) -> RemoteFolder:
    return RemoteFolder(S3Store(name, server.credentials, NO_RETRY), cache)


@pytest.mark.parametrize("is_cached", [False, True])
def test_parts_of_objects_equal_parts_of_the_files(
    root: Path, tmp_path: Path, make_store: MakeStore, is_cached: bool
) -> None:
    name = "bucket/set/images/a/deep"
    store = make_store(name)
    there: ShardFiles = RemoteFolder(store, DiskCache(tmp_path, 10**6) if is_cached else None)
    here: ShardFiles = LocalFiles(root / name)
    assert there.names() == here.names() != []
    for file in here.names():
        size = here.size(file)
        assert there.size(file) == size
        for offset, length in ((0, 10), (5, 0), (17, 100), (size - 3, 10), (0, size), (1, size), (0, 10**6), (size, 9)):
            assert there.read(file, offset, length) == here.read(file, offset, length)
        assert there.where(file).endswith(f"{name}/{file}")
    assert there.where("").endswith(f"{name}/")
    copy = pickle.loads(pickle.dumps(there))
    assert copy.read(here.names()[0], 3, 4) == here.read(here.names()[0], 3, 4)


def test_subfolders_are_not_listed_in_s3(server: S3Server) -> None:
    bucket = server.new_bucket({"sets/a": b"a", "sets/train/0.tar": b"", "sets/val/0.tar": b"", "sets2": b""})
    assert remote(server, f"{bucket}/sets").names() == ["a"]


def test_subfolders_are_not_listed_in_any_store(make_store: MakeStore) -> None:
    assert RemoteFolder(make_store("bucket/set")).names() == ["all_filenames.json", "metadata.json"]


def test_an_archive_that_was_cut_off_after_a_member_is_an_error(server: S3Server) -> None:
    whole = shard({"s/1.images.png": bytes(512)})
    bucket = server.new_bucket({"set/a.tar": whole[:1024]})
    error = catch(lambda: ShardsSource(remote(server, f"{bucket}/set"), {"images": "png"}))
    assert (error.where, error.code) == (f"s3://{bucket}/set/a.tar", "damaged-shard")


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("size", [9, 100, 300])
def test_an_object_replaced_after_it_was_listed_is_an_error_in_s3(
    server: S3Server, tmp_path: Path, size: int, is_cached: bool
) -> None:
    bucket = server.new_bucket({"set/a": bytes(100)})
    folder = remote(server, f"{bucket}/set", DiskCache(tmp_path, 10**6) if is_cached else None)
    assert folder.size("a") == 100
    server.s3.put_object(Bucket=bucket, Key="set/a", Body=b"x" * size)
    error = catch(lambda: folder.read("a", 50, 10))
    assert (error.where, error.code) == (f"s3://{bucket}/set/a", "object-replaced")


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("size", [9, 100, 300])
@pytest.mark.parametrize("store_name", ["http", "memory"])
def test_an_object_replaced_after_it_was_listed_is_an_error_in_other_stores(
    tmp_path: Path, store_name: str, size: int, is_cached: bool
) -> None:
    folder = tmp_path / "served"
    write(folder / "set" / "a", bytes(100))
    memory = fsspec.filesystem("memory")
    server = HttpServer(folder) if store_name == "http" else None
    memory.pipe("/replaced/set/a", bytes(100))
    url = server.url if server is not None else "memory://replaced"
    files = RemoteFolder(FsspecStore(f"{url}/set", {}, NO_RETRY), DiskCache(tmp_path, 10**6) if is_cached else None)
    assert files.size("a") == 100
    write(folder / "set" / "a", b"x" * size)
    memory.pipe("/replaced/set/a", b"x" * size)
    error = catch(lambda: files.read("a", 50, 10))
    assert (error.where, error.code) == (f"{url}/set/a", "object-replaced")
    memory.rm("/replaced", recursive=True)
    if server is not None:
        server.kill()


def test_a_folder_without_objects_is_an_error(make_store: MakeStore) -> None:
    store = make_store("bucket/none")
    error = catch(RemoteFolder(store).names)
    assert (error.where, error.code) == (store.where(""), "no-objects")


def shard(images: Mapping[str, bytes]) -> bytes:
    """A tar archive of files by their names."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture(scope="module")
def shards(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with three shards, and the bucket with the same shards."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        images = {
            f"s/{number}{i}.{input_type}.png": png(noise(8, 9, channels, seed=i + 4 * number, below=4))
            for i in range(4)
            for input_type, channels in (("images", 3), ("seg_maps", 1))
        }
        write(folder / f"{number}.tar", shard(images))
    return folder, server.new_bucket({f"some/{path.name}": path.read_bytes() for path in folder.iterdir()})


@pytest.mark.parametrize("is_cached", [False, True])
def test_shards_in_a_store_equal_shards_in_a_folder(
    shards: tuple[Path, str], tmp_path: Path, server: S3Server, is_cached: bool
) -> None:
    folder, bucket = shards
    cache = DiskCache(tmp_path, 10**6) if is_cached else None
    there, here = (
        ShardsSource(remote(server, f"{bucket}/some", cache), EXTENSIONS),
        ShardsSource(LocalFiles(folder), EXTENSIONS),
    )
    assert there.shards("images") == here.shards("images") == [4, 4, 4]
    assert content(loader(there).stream(Position()), 7) == content(loader(here).stream(Position()), 7)


def test_a_shard_is_fetched_once_and_again_after_it_changed(
    shards: tuple[Path, str], tmp_path: Path, server: S3Server
) -> None:
    folder, bucket = shards
    way = Faulty(server.port, [])
    cache = DiskCache(tmp_path, 10**6)

    def folder_now() -> RemoteFolder:
        return RemoteFolder(S3Store(f"{bucket}/some", credentials_for(way.port), NO_RETRY), cache)

    source = ShardsSource(folder_now(), EXTENSIONS)
    keys = source.keys("images")
    first = [source.read("images", key) for key in keys]
    assert len(way.requests) == 1 + 3  # a list, and each shard as a whole
    changed = {f"{name}.png": data for name, data in zip(("s/00.images", "s/00.seg_maps"), (first[1], b"x"))}
    server.s3.put_object(Bucket=bucket, Key="some/0.tar", Body=shard(changed))
    assert ShardsSource(folder_now(), EXTENSIONS).read("images", keys[0]) == first[1]
    server.s3.put_object(Bucket=bucket, Key="some/0.tar", Body=(folder / "0.tar").read_bytes())
    way.close()


# Configs and commands


def in_store(tmp_path: Path, server: S3Server) -> Path:
    """A config that trains from the store."""
    credentials = write(tmp_path / "credentials.json", json.dumps(server.credentials).encode())
    text = swap(TEXT, "[somewhere/train]", "[bucket/set]\n    dataset_type: object_store")
    text = swap(text, "[somewhere/val]", "[s3://bucket/set]\n    dataset_type: object_store")
    text = swap(
        text, "data:\n", f"aws_credentials_file: {credentials}\ndata:\n  cache: {{root: {tmp_path}/c, size_GB: 0.01}}\n"
    )
    return write_config(tmp_path, text)


def test_a_config_of_the_reference_opens_the_store_and_keeps_its_secret(tmp_path: Path, server: S3Server) -> None:
    config, notes = read(in_store(tmp_path, server))
    assert notes == []
    data = config.run.data
    assert data.train is not None
    samples = build_data.build_dataset(data, data.train, seed=0)
    assert samples[0, 0].keys["images"] == "a/02"
    assert list(tmp_path.glob("c/imagier-cache/??/*"))
    assert config.to_dict()["data"]["aws_credentials_file"] == f"{tmp_path}/credentials.json"
    assert "a-secret" not in config.dump()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_wrong_bucket_ends_the_command_before_anything_is_built(
    tmp_path: Path, server: S3Server, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    config = in_store(tmp_path, server)
    flags = ["--config", str(config), "--logdir", str(tmp_path / "log"), "--device", "cpu", "--single_gpu"]
    assert main(["train", *flags, f"data.{split}.roots=[no-such/set]"]) == 2
    assert capsys.readouterr().err.startswith("s3://no-such: no such bucket")
    assert not (tmp_path / "log").exists()


def test_an_index_equals_that_of_the_reference(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the flags of its scripts/build_index.py."""
    write(tmp_path / "list.txt", b"a/02.jpg\na/deep/00.png\n")
    flags = ["--output_root", str(tmp_path / "out"), "--paired", "--input_list", str(tmp_path / "list.txt")]
    assert index(write_config(tmp_path), root / "bucket" / "set", *flags) == 0
    assert json.loads((tmp_path / "out" / "all_filenames.json").read_text()) == {"set/a": ["02"], "set/a/deep": ["00"]}
    assert json.loads((tmp_path / "out" / "metadata.json").read_text()) == EXTENSIONS
    assert "images (png)" in capsys.readouterr().out
    unpaired = json.loads((root / "bucket" / "unpaired" / "all_filenames.json").read_text())
    assert unpaired == {"images": {".": ["top"], "s": ["猫"]}, "seg_maps": {"t": ["x.y"]}}


def test_a_paired_index_of_unpaired_types_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index(write_config(tmp_path), root / "bucket" / "unpaired", "--paired") == 2
    assert f"{root}/bucket/unpaired/seg_maps/top.png: " in capsys.readouterr().err
