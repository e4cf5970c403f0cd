"""What is read from a real server that speaks S3: the right objects, whatever happens to it; no secret is told."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from images import noise, png, write
from s3_server import Faulty, S3Server
from small_config import TEXT, read, swap
from small_config import write as write_config
from small_data import build, codec_for

from imagier.cli import main
from imagier.data.datasets.paired_images import Dataset
from imagier.data.loading.loader import Loader
from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.folder import FolderSource
from imagier.data.sources.object_store import ObjectStoreSource, S3Folder
from imagier.data.sources.s3 import Patience
from imagier.data.sources.shard_files import LocalFiles, ShardFiles
from imagier.data.sources.shards import ShardsSource
from imagier.data.sources.source import Source
from imagier.errors import UserError
from imagier.recipe import Position
from imagier.run import build_data

pytestmark = pytest.mark.usefixtures("no_credentials")

KINDS = {"images": "png", "seg_maps": "png"}
QUICK = Patience(total_s=20, first_s=0.01, longest_s=0.1)


def never(seconds: float) -> None:
    pytest.fail("tried again")


AT_ONCE = Patience(pause=never)


def line(work: Any) -> str:
    """The one line of a mistake."""
    with pytest.raises(UserError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def index(config: Path, folder: Path, *flags: str) -> int:
    """Lists a folder with the command that does so."""
    return main(["data", "index", "--data_root", str(folder), "--config", str(config), *flags])


def store(server: S3Server, name: str = "bucket/set", cache: DiskCache | None = None) -> ObjectStoreSource:
    return ObjectStoreSource(S3Folder(name, server.credentials, cache, QUICK), KINDS)


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


# Which objects


@pytest.mark.parametrize("name", ["bucket/set", "s3://bucket/set/", "bucket/unpaired"])
def test_it_is_the_same_as_the_folder_that_was_uploaded(root: Path, server: S3Server, name: str) -> None:
    there = store(server, name)
    here = FolderSource(root / name.removeprefix("s3://"), KINDS)
    for kind in KINDS:
        assert there.keys(kind) == here.keys(kind)
        assert there.shards(kind) == [len(here.keys(kind))]
        assert there.extension(kind) == "png"
        assert [there.read(kind, key) for key in there.keys(kind)] == [here.read(kind, key) for key in here.keys(kind)]


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
def test_the_reference_s_lists_lead_to_its_objects(
    server: S3Server, name: str, filenames: dict[str, list[str]], objects: list[str]
) -> None:
    """An object's key is that of its type put in behind the name of the base, with which each sequence begins."""
    base = name.partition("/")[2]
    files = {f"{base}/{key}.jpg".lstrip("/"): key.encode() for key in objects}
    lists = {"all_filenames.json": filenames, "metadata.json": {"images": "jpg"}}
    files |= {f"{base}/{key}".lstrip("/"): json.dumps(tree).encode() for key, tree in lists.items()}
    bucket = server.new_bucket(files)
    source = ObjectStoreSource(S3Folder(f"{bucket}/{base}", server.credentials, patience=QUICK), {"images": "png"})
    keys = source.keys("images")
    assert [source.read("images", key).decode() for key in keys] == objects
    assert [source.where("images", key) for key in keys] == [
        f"s3://{bucket}/{base and base + '/'}{key}.jpg" for key in objects
    ]
    assert source.extension("images") == "jpg"


def test_a_sequence_with_the_name_of_the_root_is_no_root_where_types_stand_for_themselves(server: S3Server) -> None:
    lists = {"all_filenames.json": {"images": {"cats": ["1"]}}, "metadata.json": {"images": "jpg"}}
    files = {f"cats/{name}": json.dumps(tree).encode() for name, tree in lists.items()}
    bucket = server.new_bucket({**files, "cats/images/cats/1.jpg": b"a cat"})
    source = ObjectStoreSource(S3Folder(f"{bucket}/cats", server.credentials, patience=AT_ONCE), {"images": "jpg"})
    assert {key: source.read("images", key) for key in source.keys("images")} == {"cats/1": b"a cat"}


def test_the_stream_of_a_training_is_that_from_the_folder(root: Path, server: S3Server) -> None:
    expected = content(loader(FolderSource(root / "bucket" / "set", KINDS)).stream(Position(1, 2)), 9)
    for num_workers in (0, 2):
        assert content(loader(store(server), num_workers).stream(Position(1, 2)), 9) == expected


def test_threads_share_a_source(root: Path, server: S3Server) -> None:
    source = store(server)
    keys = source.keys("images") * 3
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda key: source.read("images", key), keys))
    assert found == [(root / "bucket" / "set" / "images" / f"{key}.png").read_bytes() for key in keys]


def test_a_source_can_be_sent_to_a_process_that_is_not_forked(server: S3Server, tmp_path: Path) -> None:
    source = store(server, cache=DiskCache(tmp_path, 10**6))
    source.read("images", source.keys("images")[0])
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read("images", key) for key in copy.keys("images")] == [
        source.read("images", key) for key in source.keys("images")
    ]


# A server in trouble


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_server_that_dies_in_mid_epoch_and_comes_back_costs_no_sample(root: Path, num_workers: int) -> None:
    server = S3Server(root)
    expected = content(loader(FolderSource(root / "bucket" / "set", KINDS)).stream(Position()), 12)
    stream = loader(store(server), num_workers).stream(Position())
    first = content(stream, 2)
    server.kill()
    server.start()  # up in a second or so; nobody waits for it but the requests
    assert first + content(stream, 10) == expected
    stream.close()
    server.kill()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"all_filenames.json": b"{"}, r"all_filenames.json: not JSON; make it with `imagier data index`"),
        (
            {"all_filenames.json": b"[1]"},
            r"all_filenames.json: expected \{sequence: \[name\]\} or .*`imagier data index`",
        ),
        ({"metadata.json": b'{"images": 1}'}, r"metadata.json: expected \{type: extension\}; .*"),
        (
            {"metadata.json": b'{"images": "png"}'},
            r"all_filenames.json: lists no input type 'seg_maps'; it has: images",
        ),
        ({"all_filenames.json": b"{}"}, r"all_filenames.json: lists no files of input type 'images'; .*"),
        (
            {"all_filenames.json": b'{"../x": ["a"]}'},
            r"all_filenames.json: lists '../x/a', which cannot be the name of a file; .*",
        ),
    ],
)
def test_lists_that_are_none_are_told(server: S3Server, files: dict[str, bytes], expected: str) -> None:
    good = {"all_filenames.json": b'{"s": ["a"]}', "metadata.json": b'{"images": "png", "seg_maps": "png"}'}
    bucket = server.new_bucket({f"set/{name}": data for name, data in {**good, **files}.items()})
    assert re.fullmatch(f"s3://{bucket}/set/{expected}", line(lambda: store(server, f"{bucket}/set")))


# The cache


def test_what_was_read_once_is_read_from_the_disk(root: Path, tmp_path: Path, server: S3Server) -> None:
    way = Faulty(server, [])
    cache = DiskCache(tmp_path, 10**6)
    source = ObjectStoreSource(S3Folder("bucket/set", way.credentials, cache, AT_ONCE), KINDS)
    here = FolderSource(root / "bucket" / "set", KINDS)
    for expected_requests in (2 + 24, 2 + 24):
        for kind in KINDS:
            assert [source.read(kind, key) for key in source.keys(kind)] == [
                here.read(kind, k) for k in here.keys(kind)
            ]
        assert len(way.requests) == expected_requests
    damaged = sorted(path for path in tmp_path.rglob("??/*") if path.is_file())[:3]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-7])
    assert content(loader(source).stream(Position()), 6) == content(loader(here).stream(Position()), 6)
    assert len(way.requests) == expected_requests + len(damaged)
    way.close()


def test_objects_of_the_same_name_in_two_buckets_are_two(tmp_path: Path, server: S3Server) -> None:
    cache = DiskCache(tmp_path, 10**6)
    for data in (b"first", b"second"):
        folder = S3Folder(f"{server.new_bucket({'set/a': data})}/set", server.credentials, cache, AT_ONCE)
        assert [folder.fetch("a"), folder.fetch("a")] == [data] * 2


# Tar shards


def remote(server: S3Server, name: str, cache: DiskCache | None) -> S3Folder:
    return S3Folder(name, server.credentials, cache, AT_ONCE)


@pytest.mark.parametrize("cached", [False, True])
def test_parts_of_objects_are_those_of_the_files(root: Path, tmp_path: Path, server: S3Server, cached: bool) -> None:
    cache = DiskCache(tmp_path, 10**6) if cached else None
    there: ShardFiles = remote(server, "bucket/set/images/a/deep", cache)
    here: ShardFiles = LocalFiles(root / "bucket" / "set" / "images" / "a" / "deep")
    assert there.names() == here.names() != []
    for name in here.names():
        assert there.size(name) == here.size(name)
        for offset, length in ((0, 10), (5, 0), (17, 100), (here.size(name) - 3, 10), (0, 10**6)):
            assert there.read(name, offset, length) == here.read(name, offset, length)
        assert there.where(name) == f"s3://bucket/set/images/a/deep/{name}"
    assert there.where("") == "s3://bucket/set/images/a/deep/"
    copy = pickle.loads(pickle.dumps(there))
    assert copy.read(here.names()[0], 3, 4) == here.read(here.names()[0], 3, 4)


def test_what_lies_in_folders_below_is_not_of_a_folder(server: S3Server) -> None:
    bucket = server.new_bucket({"sets/a": b"a", "sets/train/0.tar": b"", "sets/val/0.tar": b"", "sets2": b""})
    assert remote(server, f"{bucket}/sets", None).names() == ["a"]


def test_an_archive_that_was_cut_off_at_a_member_is_told_as_in_a_folder(server: S3Server) -> None:
    whole = shard({"s/1.images.png": bytes(512)})
    bucket = server.new_bucket({"set/a.tar": whole[:1024]})
    said = line(lambda: ShardsSource(remote(server, f"{bucket}/set", None), {"images": "png"}))
    assert said == f"s3://{bucket}/set/a.tar: damaged or cut off (no end); make or copy it again"


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("size", [9, 100, 300])
def test_another_object_under_the_name_of_one_that_was_listed_is_told(
    server: S3Server, tmp_path: Path, size: int, cached: bool
) -> None:
    bucket = server.new_bucket({"set/a": bytes(100)})
    folder = remote(server, f"{bucket}/set", DiskCache(tmp_path, 10**6) if cached else None)
    assert folder.size("a") == 100
    server.s3.put_object(Bucket=bucket, Key="set/a", Body=b"x" * size)
    said = line(lambda: folder.read("a", 50, 10))
    assert said == f"s3://{bucket}/set/a: was replaced after the run had listed it; start the run again"


def test_a_folder_without_objects_is_told(server: S3Server) -> None:
    said = line(remote(server, "bucket/none", None).names)
    assert said == "s3://bucket/none/: no objects there; check `roots`"


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
    """Three shards as a folder, and where they lie in the store."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        images = {
            f"s/{number}{i}.{kind}.png": png(noise(8, 9, channels, seed=i + 4 * number, below=4))
            for i in range(4)
            for kind, channels in (("images", 3), ("seg_maps", 1))
        }
        write(folder / f"{number}.tar", shard(images))
    return folder, server.new_bucket({f"some/{path.name}": path.read_bytes() for path in folder.iterdir()})


@pytest.mark.parametrize("cached", [False, True])
def test_shards_in_a_store_are_those_in_a_folder(
    shards: tuple[Path, str], tmp_path: Path, server: S3Server, cached: bool
) -> None:
    folder, bucket = shards
    cache = DiskCache(tmp_path, 10**6) if cached else None
    there, here = ShardsSource(remote(server, f"{bucket}/some", cache), KINDS), ShardsSource(LocalFiles(folder), KINDS)
    assert there.shards("images") == here.shards("images") == [4, 4, 4]
    assert content(loader(there).stream(Position()), 7) == content(loader(here).stream(Position()), 7)


def test_a_shard_is_fetched_once_and_again_when_it_is_another(
    shards: tuple[Path, str], tmp_path: Path, server: S3Server
) -> None:
    folder, bucket = shards
    way = Faulty(server, [])
    cache = DiskCache(tmp_path, 10**6)
    files = S3Folder(f"{bucket}/some", way.credentials, cache, AT_ONCE)
    source = ShardsSource(files, KINDS)
    keys = source.keys("images")
    first = [source.read("images", key) for key in keys]
    assert len(way.requests) == 1 + 3  # a list, and each shard as a whole
    changed = {f"{name}.png": data for name, data in zip(("s/00.images", "s/00.seg_maps"), (first[1], b"x"))}
    server.s3.put_object(Bucket=bucket, Key="some/0.tar", Body=shard(changed))
    assert (
        ShardsSource(S3Folder(f"{bucket}/some", way.credentials, cache, AT_ONCE), KINDS).read("images", keys[0])
        == first[1]
    )
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
    samples = build_data.dataset(data, data.train, seed=0)
    assert samples[0, 0].keys["images"] == "a/02"
    assert list(tmp_path.glob("c/imagier-cache/??/*"))
    assert config.to_dict()["data"]["aws_credentials_file"] == f"{tmp_path}/credentials.json"
    assert "a-secret" not in config.dump()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_wrong_bucket_is_told_before_anything_is_built(
    tmp_path: Path, server: S3Server, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    config = in_store(tmp_path, server)
    flags = ["--config", str(config), "--logdir", str(tmp_path / "log"), "--device", "cpu", "--single_gpu"]
    assert main(["train", *flags, f"data.{split}.roots=[no-such/set]"]) == 2
    said = capsys.readouterr()
    assert said.err == "s3://no-such: no such bucket; check `roots`, and endpoint_url if the server is not Amazon's\n"
    assert not (tmp_path / "log").exists()


def test_an_index_is_that_of_the_reference(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flags and files as its scripts/build_index.py has them."""
    write(tmp_path / "list.txt", b"a/02.jpg\na/deep/00.png\n")
    flags = ["--output_root", str(tmp_path / "out"), "--paired", "--input_list", str(tmp_path / "list.txt")]
    assert index(write_config(tmp_path), root / "bucket" / "set", *flags) == 0
    assert json.loads((tmp_path / "out" / "all_filenames.json").read_text()) == {"set/a": ["02"], "set/a/deep": ["00"]}
    assert json.loads((tmp_path / "out" / "metadata.json").read_text()) == KINDS
    assert "images (png)" in capsys.readouterr().out
    unpaired = json.loads((root / "bucket" / "unpaired" / "all_filenames.json").read_text())
    assert unpaired == {"images": {".": ["top"], "s": ["猫"]}, "seg_maps": {"t": ["x.y"]}}


def test_an_index_of_types_that_do_not_belong_together_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index(write_config(tmp_path), root / "bucket" / "unpaired", "--paired") == 2
    assert "not there" in capsys.readouterr().err
