"""Content and style images with their classes."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import Memory, noise, png, write
from small_data import build, codec_for
from stores import reference_lmdb, tar

from imagier.data.datasets.unpaired_few_shot_images import Dataset
from imagier.data.loading.loader import Loader
from imagier.data.sources.opening import open_local
from imagier.recipe import Batch, Position
from imagier.run.quick_check import quick_check

TYPES = [codec_for(name=f"images_{kind}", ext="png", num_channels=3) for kind in ("content", "style")]
PLAIN = {"resize_h_w": "2, 2"}


def memory(content: list[str], style: list[str]) -> Memory:
    """An image for every key."""
    keys = [("images_content", key) for key in content] + [("images_style", key) for key in style]
    return Memory({place: png(noise(2, 2, seed=i)) for i, place in enumerate(keys)})


ANIMALS = memory(["cat/0", "cat/1", "dog/0", "ape/deep/0"], ["dog/0", "dog/1", "ape/0", "cat/0", "cat/1", "cat/2"])


def dataset(*sources: Any, is_training: bool = True, augmentations: Any = PLAIN, **options: Any) -> Dataset:
    return build(Dataset, sources, codecs=TYPES, augmentations=augmentations, is_training=is_training, **options)


def labels(data: Dataset, epoch: int, index: int) -> dict[str, object]:
    numbers = data[epoch, index].numbers
    return {kind: numbers[f"labels_{kind}"] for kind in ("content", "style")}


def test_a_class_is_the_outermost_folder_and_its_label_its_place_in_the_alphabet() -> None:
    data = dataset(ANIMALS)
    assert data.classes == {f"labels_{kind}": ["ape", "cat", "dog"] for kind in ("content", "style")}
    seen = {}
    for index in range(200):
        sample = data[0, index]
        for kind in ("content", "style"):
            seen[kind, sample.keys[f"images_{kind}"].split("/")[0]] = sample.numbers[f"labels_{kind}"]
    assert seen == {(kind, name): i for kind in ("content", "style") for i, name in enumerate(["ape", "cat", "dog"])}


def test_contents_and_styles_are_numbered_apart_and_roots_together() -> None:
    first, second = memory(["cat/0"], ["dog/0"]), memory(["ape/0"], ["cat/0", "eel/0"])
    data = dataset(first, second, is_training=False)
    assert data.classes == {"labels_content": ["ape", "cat"], "labels_style": ["cat", "dog", "eel"]}
    samples = [data[0, i] for i in range(3)]
    assert {x.keys["images_style"]: x.numbers["labels_style"] for x in samples} == {"cat/0": 0, "dog/0": 1, "eel/0": 2}
    contents = {(x.keys["images_content"], x.numbers["labels_content"]) for x in samples}
    assert contents <= {("cat/0", 1), ("ape/0", 0)}
    assert contents


@pytest.mark.parametrize("store", ["folder", "lmdb", "shards"])
def test_every_kind_of_store_gives_a_file_the_class_of_its_outermost_folder(tmp_path: Path, store: str) -> None:
    contents, styles = ["cat/0", "dog/0", "wild/0"], ["images_content/cat/0", "images_content/dog/0"]
    keys = [("images_content", key) for key in contents] + [("images_style", key) for key in styles]
    files = {(kind, key): png(noise(2, 2, seed=i)) for i, (kind, key) in enumerate(keys)}
    write_store(tmp_path, store, files)
    source = open_local(str(tmp_path), {"images_content": "png", "images_style": "png"}, store)
    assert dataset(source).classes == {"labels_content": ["cat", "dog", "wild"], "labels_style": ["images_content"]}


def write_store(root: Path, store: str, files: dict[tuple[str, str], bytes]) -> None:
    """The files under a root, as the reference's folders and LMDB hold them, or in a tar."""
    if store == "folder":
        for (kind, key), data in files.items():
            write(root / kind / f"{key}.png", data)
    elif store == "lmdb":
        values: dict[str, dict[str, bytes]] = {}
        listed: dict[str, dict[str, list[str]]] = {}
        for (kind, key), data in files.items():
            values.setdefault(kind, {})[key] = data
            sequence, _, name = key.rpartition("/")
            listed.setdefault(kind, {}).setdefault(sequence, []).append(name)
        reference_lmdb(root, values, listed)
    else:
        tar(root / "000000.tar", [(f"{key}.{kind}.png", data) for (kind, key), data in files.items()])


def test_files_right_under_their_type_are_a_class() -> None:
    assert dataset(memory(["./0"], ["./0", "./1"])).classes == {"labels_content": ["."], "labels_style": ["."]}


def test_in_training_content_and_style_are_drawn_independently_and_uniformly_over_files() -> None:
    data = dataset(ANIMALS)
    assert len(data) == 6
    drawn = Counter(tuple(data[epoch, index].keys.values()) for epoch in range(400) for index in range(6))
    assert len(drawn) == 4 * 6
    assert all(50 < count < 150 for count in drawn.values())  # 2400 of 24 pairs: 5 standard deviations


def test_held_out_every_style_comes_once_class_after_class_with_the_content_of_the_formula() -> None:
    data = dataset(ANIMALS, is_training=False)
    contents = ANIMALS.keys("images_content")
    styles = {"ape": ["ape/0"], "cat": ["cat/0", "cat/1", "cat/2"], "dog": ["dog/0", "dog/1"]}
    expected = [
        (contents[((i + 8888 * k) * 100) % len(contents)], style)
        for k, name in enumerate(sorted(styles))
        for i, style in enumerate(styles[name])
    ]
    assert [tuple(data[0, index].keys.values()) for index in range(len(data))] == expected


def test_the_rank_of_a_held_out_class_counts_styles_alone() -> None:
    contents = [f"ape/{i}" for i in range(7)]
    data = dataset(memory(contents, ["bee/0", "cat/0"]), is_training=False)
    assert [data[0, k].keys["images_content"] for k in range(2)] == [contents[0], contents[888800 % 7]]
    assert [labels(data, 0, k) for k in range(2)] == [{"content": 0, "style": 0}, {"content": 0, "style": 1}]


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    augmentations = {"resize_h_w": "6, 6", "rotate": 30, "random_crop_h_w": "4, 4"}
    places = [(seed, epoch, index) for seed in range(2) for epoch in range(2) for index in range(6)]

    def look(seed: int, epoch: int, index: int) -> tuple[object, ...]:
        sample = dataset(ANIMALS, augmentations=augmentations, seed=seed)[epoch, index]
        return tuple(sample.keys.values()), *sample.numbers.values(), *(a.tobytes() for a in sample.arrays.values())

    first = {place: look(*place) for place in places}
    assert {place: look(*place) for place in reversed(places)} == first
    assert len(set(first.values())) == len(places)


def batches(data: Dataset, start: Position, num_workers: int) -> Any:
    made = Loader(
        data,
        2,
        device=torch.device("cpu"),
        finish=lambda batch: batch,
        seed=5,
        shuffle=True,
        num_workers=num_workers,
    )
    return made.stream(start)


def content(batch: Batch) -> tuple[dict[str, list], dict[str, list[str]]]:
    return {name: tensor.tolist() for name, tensor in batch.tensors.items()}, batch.keys


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_has_labels_and_a_resumed_stream_has_the_same(num_workers: int) -> None:
    data = dataset(ANIMALS, seed=5)
    uninterrupted = list(islice(batches(data, Position(), 0), 5))
    batch, position = uninterrupted[0]
    assert batch["labels_content"].dtype == batch["labels_style"].dtype == torch.int64
    for kind in ("content", "style"):
        names = [data.classes[f"labels_{kind}"][label] for label in batch[f"labels_{kind}"]]
        assert [key.split("/")[0] for key in batch.keys[f"images_{kind}"]] == names
    rest = [content(batch) for batch, _ in islice(batches(data, position, num_workers), 4)]
    assert rest == [content(batch) for batch, _ in uninterrupted[1:]]


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("wrong", [("images_content", "cat/0"), ("images_style", "cat/2")])
def test_a_look_at_the_set_names_a_wrong_file(is_training: bool, wrong: tuple[str, str]) -> None:
    source = Memory({**ANIMALS.files, wrong: png(np.zeros((2, 2, 1), np.uint8))})
    lines = quick_check(dataset(source, is_training=is_training))
    assert lines
    assert all(line.startswith(f"memory/{wrong[0]}/{wrong[1]}.png: has 1 channels") for line in lines)
