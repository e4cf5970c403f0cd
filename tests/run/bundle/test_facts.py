"""What bundle.json says of inputs, of the data set, and of the license."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_config
import torch
from PIL import Image
from small_data import codec_for

from imagier.config import schema
from imagier.nn.instances import instance_edges
from imagier.recipe import Batch
from imagier.run.bundle import facts, model_card
from imagier.run.bundle.model_card import write_card

NAMES = {2: ["land", "sea"]}


def test_a_part_of_a_label_says_what_its_channels_are() -> None:
    classes = codec_for(name="seg", ext="png", num_channels=1, num_classes=2, use_dont_care=True)
    assert facts.describe_part(classes, Batch({}), (), NAMES) == {
        "type": "seg",
        "channels": 3,
        "kind": "classes",
        "classes": [
            {"id": 0, "name": "land", "color": [0, 0, 0]},
            {"id": 1, "name": "sea", "color": [128, 0, 0]},
        ],
        "ignored": "last channel",
    }
    edges = codec_for(name="edges", ext="png", num_channels=1, normalize=True)
    described = {"type": "edges", "channels": 1, "kind": "image", "range": [-1, 1]}
    assert facts.describe_part(edges, Batch({}), (), NAMES) == described
    ids = codec_for(name="ids", ext="png", num_channels=1, is_mask=True)
    assert facts.describe_part(ids, Batch({}), ("ids",), NAMES)["kind"] == "instance_edges"
    points = codec_for(name="points", ext="json", is_points=True)
    assert facts.describe_part(points, Batch({}), (), NAMES)["kind"] == "other"


@pytest.fixture
def data(tmp_path: Path) -> schema.Data:
    """The data section of a config whose roots are set/train and set/val."""
    config, _ = small_config.read(small_config.write(tmp_path))
    train, val = config.run.data.train, config.run.data.val
    assert train is not None and val is not None
    for name in ("train", "val"):
        (tmp_path / "set" / name).mkdir(parents=True)
    return dataclasses.replace(
        config.run.data,
        train=dataclasses.replace(train, roots=[str(tmp_path / "set" / "train")]),
        val=dataclasses.replace(val, roots=[str(tmp_path / "set" / "val")]),
    )


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("License: CC BY-SA 4.0, see http://a.org/b.", "CC BY-SA 4.0"),
        ("CC-BY-NC-4.0 http://a.org/b", "CC-BY-NC-4.0"),
        ("Put into the public domain, CC0. http://a.org/b)", "CC0"),
        ("under the Apache License, Version 2.0 (http://a.org/b)", "Apache License, Version 2.0"),
        ("Redistribution and use in source and binary forms ... http://a.org/b", "BSD"),
        ("All rights reserved. http://a.org/b", None),
    ],
)
def test_the_license_is_what_the_credits_name(
    data: schema.Data, tmp_path: Path, text: str, license: str | None
) -> None:
    assert facts.find_license(data) == {"data": None, "data_source": None, "credits": None}
    (tmp_path / "set" / "CREDITS.txt").write_text(text)
    assert facts.find_license(data) == {"data": license, "data_source": "http://a.org/b", "credits": text}


def test_classes_have_the_names_that_the_data_set_lists(data: schema.Data, tmp_path: Path) -> None:
    (tmp_path / "set" / "a.json").write_text("[1, 2]")
    (tmp_path / "set" / "b.json").write_text("no JSON")
    (tmp_path / "set" / "c.json").write_text(json.dumps({"classes": ["a", "b"]}))
    assert facts.find_class_names(data) == {2: ["a", "b"]}


def test_the_card_shows_the_code_for_every_kind_of_input() -> None:
    """Its code makes tensors of the shapes that the graph takes, of the files of the first sample."""
    inputs = [
        {
            "name": "images",
            "role": "image",
            "type": "images_a",
            "shape": ["batch", 3, "height", "width"],
            "range": [-1, 1],
        },
        {"name": "noise", "role": "noise", "shape": ["batch", 8], "distribution": "normal"},
        {"name": "features", "role": "features", "shape": ["batch", 2, "height", "width"], "choices": []},
    ]
    content = {
        "name": "x",
        "method": "munit",
        "iteration": 3,
        "weights": "average",
        "image_size": [4, 6],
        "size_multiple": 2,
        "inputs": inputs,
        "outputs": [{"name": "fake_images", "shape": ["batch", 3, "height", "width"], "range": [-1, 1]}],
        "files": {"onnx": {"path": "generator.onnx", "bytes": 1, "max_difference": 0.0, "seconds": 0.1}},
        "torch_seconds": 0.1,
        "license": {"weights": None, "data": None, "data_source": None},
        "samples": [
            {"input": "samples/a.png", "inputs": {"images_a": "samples/a.png"}, "style": None, "output": "b.png"}
        ],
    }
    card = write_card(content, None)
    assert "license: unknown" in card and "random numbers" in card and "multiples of 2" in card
    assert 'images = np.float32(Image.open("samples/a.png").convert("RGB")) / 127.5 - 1' in card
    assert "features = np.zeros((1, 2, 4, 6), np.float32)" in card


def test_the_code_of_the_card_makes_the_label_that_the_network_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all kinds of parts, against what the loader does with the same files."""
    rng = np.random.default_rng(0)
    codecs = [
        codec_for(name="lines", ext="png", num_channels=1),
        codec_for(name="seg", ext="png", num_channels=1, num_classes=3, use_dont_care=True),
        codec_for(name="few", ext="png", num_channels=1, num_classes=3, dont_care=2),
        codec_for(name="photo", ext="png", num_channels=3, normalize=True),
        codec_for(name="depth", ext="png", num_channels=1),
        codec_for(name="height", ext="png", num_channels=1, normalize=True),
        codec_for(name="ids", ext="png", num_channels=1, is_mask=True),
    ]
    stored = {}
    for codec in codecs:
        most = {"seg": 6, "few": 6, "ids": 3, "depth": 65536, "height": 65536}.get(codec.name, 256)
        kind = np.uint16 if most == 65536 else np.uint8
        stored[codec.name] = rng.integers(0, most, (4, 6, codec.input_type.num_channels), kind)
        Image.fromarray(stored[codec.name].squeeze()).save(tmp_path / f"{codec.name}.png")
    monkeypatch.chdir(tmp_path)
    tensors = {
        name: torch.from_numpy(x.astype(np.int32) if x.dtype == np.uint16 else x)[None] for name, x in stored.items()
    }
    parts = [facts.describe_part(codec, Batch(tensors), ("ids",), {}) for codec in codecs]
    content = {
        "image_size": [4, 6],
        "inputs": [{"name": "label", "role": "label", "parts": parts}],
        "samples": [{"inputs": {codec.name: f"{codec.name}.png" for codec in codecs}}],
    }
    names: dict[str, Any] = {"np": np, "Image": Image}
    exec("\n".join(model_card.load_inputs(content)), names)
    expanded = [codec.expand(tensors[codec.name]) for codec in codecs]
    expanded[-1] = instance_edges(expanded[-1])
    torch.testing.assert_close(torch.from_numpy(names["label"]), torch.cat(expanded, dim=1))


def test_choices_of_features_are_those_that_the_checkpoint_keeps() -> None:
    from imagier.nn.instances import Clusters

    clusters = Clusters(num_classes=2, num_clusters=3, width=2)
    clusters.fit(torch.tensor([0, 0, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    (entry,) = facts.describe_inputs(
        {"features": torch.zeros(1, 2, 4, 4)},
        Batch({}),
        _no_data(),
        _no_data(),
        _no_data(),
        torch.nn.Sequential(clusters),
    )
    assert [sorted(of) for of in entry["choices"]] == [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]]


def _no_data() -> schema.Data:
    return schema.Data(type="images", input_types=[{"images": schema.InputType(ext="png")}])
