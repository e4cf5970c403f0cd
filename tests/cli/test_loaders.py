"""From a config to loaders: the same stream from every store, shards together, videos whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
import torch

from imagier.cli import main
from imagier.config import schema
from imagier.config.check import Config
from imagier.config.read import read
from imagier.recipe import Batch, Position
from imagier.run import build_data
from imagier.train.runtime import Runtime

SAMPLES = 23


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same training set in each kind of store; the config beside them is `tiny.yaml`."""
    folder = tmp_path_factory.mktemp("stores")
    files = tiny.write_data(folder / "data", train=SAMPLES, val=1) / "train"
    config = tiny.write_config(folder / "tiny.yaml", folder / "data")
    found = {"folder": files}
    for store in ("lmdb", "shards"):
        found[store] = folder / store
        words = ["--config", config, "--data_root", files, "--output_root", folder / store, "--paired"]
        assert main(["data", "build", store, *map(str, words)]) == 0
    return found


def config_of(stores: dict[str, Path], store: str, *words: str) -> Config:
    overrides = [f"data.train.roots=[{stores[store]}]", *words]
    return read(stores["folder"].parents[1] / "tiny.yaml", overrides)[0]


def stream(config: Config, start: Position, rank: int = 0, world: int = 1) -> Iterator[tuple[Batch, Position]]:
    return build_data.build_train_loader(config, Runtime(torch.device("cpu"), rank=rank, world=world), seed=5).stream(
        start
    )


def content(batches: Iterator[tuple[Batch, Position]], count: int) -> list[Any]:
    taken = islice(batches, count)
    return [({n: t.tolist() for n, t in batch.tensors.items()}, batch.keys, position) for batch, position in taken]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_stream_is_the_same_from_every_kind_of_store(stores: dict[str, Path], num_workers: int) -> None:
    start = Position(1, 20)
    expected = content(stream(config_of(stores, "folder"), start), 4)
    for store in ("lmdb", "shards"):
        config = config_of(stores, store, f"data.num_workers={num_workers}")
        assert content(stream(config, start), 4) == expected


@pytest.mark.parametrize("world", [1, 2, 4])
def test_shards_are_shuffled_whole_and_every_sample_is_seen_once(
    stores: dict[str, Path], world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagier.data.loading.order.WINDOW_BLOCKS", 1)
    monkeypatch.setattr("imagier.data.sources.shards.ShardsSource.shards", lambda source, kind: [10, 8, 5])
    config = config_of(stores, "shards", "data.train.shuffle=shards")
    ranks = [stream(config, Position(), rank, world) for rank in range(world)]
    steps = -(-SAMPLES // (2 * world))
    seen = [key for _ in range(steps) for rank in ranks for key in next(rank)[0].keys["images"]][:SAMPLES]
    assert sorted(seen) == sorted({f"./{index:03d}" for index in range(SAMPLES)})
    blocks = ["aaaaaaaaaabbbbbbbbccccc"[int(key[2:])] for key in seen]
    assert sum(one != other for one, other in pairwise(blocks)) == 2, "one shard after the other"
    assert seen != sorted(seen)


@pytest.mark.parametrize("world", [1, 2])
def test_held_out_videos_are_read_whole_and_frame_by_frame(stores: dict[str, Path], tmp_path: Path, world: int) -> None:
    lengths = {"a": 4, "b": 3, "c": 6}
    for sequence, length in lengths.items():
        (tmp_path / "images" / sequence).mkdir(parents=True)
        for frame in range(length):
            cv2.imwrite(str(tmp_path / "images" / sequence / f"{frame}.png"), np.zeros((8, 8, 3), np.uint8))
    config = config_of(stores, "folder")
    data = dataclasses.replace(
        config.run.data,
        type="paired_videos",
        input_types=[{"images": schema.InputType(ext="png", num_channels=3)}],
        input_labels=[],
        one_hot_num_classes={},
    )
    split = schema.Split(roots=[str(tmp_path)], augmentations={"resize_h_w": "8, 8"})
    shares = []
    for rank in range(world):
        runtime = Runtime(torch.device("cpu"), rank=rank, world=world)
        batches = build_data.build_held_out_loader(config, runtime, data, split, seed=0).once()
        shares.append([key for batch in batches for key in batch.keys["images"]])
    whole = [[f"{sequence}/{frame}" for frame in range(length)] for sequence, length in lengths.items()]
    if world == 1:
        assert shares == [[key for sequence in whole for key in sequence]]
    else:
        assert shares == [whole[2], whole[0] + whole[1]]


def test_loaders_find_the_label_channels_that_occur(stores: dict[str, Path]) -> None:
    """Where samples are read; on a GPU, it could only be asked by waiting."""
    config = config_of(stores, "folder", "data.one_hot_num_classes={seg_maps: 30}")
    held_out = build_data.build_validation_loader(config, Runtime(torch.device("cpu")), seed=0)
    assert held_out is not None
    for batch in (next(stream(config, Position()))[0], *held_out.once()):
        present = batch["label_present"]
        assert torch.equal(present, (batch["label"] != 0).flatten(2).any(dim=2))
        assert present.any() and not present.all()
