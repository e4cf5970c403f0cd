"""A page of samples as they are stored and as the networks will see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imagier.config import schema
from imagier.config.check import Config
from imagier.config.find import find
from imagier.data.dataset import Dataset
from imagier.data.decoding.sample import InputType, Sample
from imagier.data.listing.files import FileList
from imagier.recipe import Position
from imagier.run import build_data
from imagier.tools.doctor.file_stats import NOTHING, image, is_video
from imagier.tools.doctor.images import Shown, class_colors, css, shown, template, with_points
from imagier.tools.doctor.splits import splits
from imagier.train import runtime as runtimes

IMAGE_PX, FRAME_PX = 160, 96
MOST_FRAMES = 8
HELD_OUT = 3


def page(config: Config, *, title: str, samples: int, draws: int, seed: int) -> str:
    """The page as HTML; it needs nothing from elsewhere. UserError if a file of a shown sample is wrong."""
    legend = Legend()
    sections = []
    for name, data, split in splits(config):
        if name == "train":
            sections.append(_section(name, data, split, Draws(samples, draws, seed), legend))
        elif name == "val":
            sections.append(_section(name, data, split, Draws(min(samples, HELD_OUT), 1, seed), legend))
    return template("preview.html").render(
        title=title, sections=sections, legends=legend.entries(), batch=_batch(config, seed), seed=seed
    )


@dataclass(frozen=True)
class Draws:
    """How much of a split is shown."""

    samples: int
    draws: int
    seed: int


@dataclass
class Legend:
    """The classes that are to be seen on the page."""

    seen: dict[str, tuple[InputType, set[int]]] = field(default_factory=dict)

    def add(self, kind: InputType, array: np.ndarray) -> None:
        """Notes the classes of a map, if it is one."""
        if kind.num_classes is not None:
            _, numbers = self.seen.setdefault(kind.name, (kind, set()))
            numbers.update(np.unique(array).tolist())

    def entries(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Types with classes, each with (name, color for a style sheet) of its classes."""
        found = []
        for name, (kind, numbers) in self.seen.items():
            colors = class_colors(kind.num_classes or 0)
            found.append((name, [(_class_name(number, kind), css(colors[number])) for number in sorted(numbers)]))
        return found


def _class_name(number: int, kind: InputType) -> str:
    known = kind.num_classes or 0
    if number < known:
        return str(number)
    return f"{number} (nothing)" if number == NOTHING else f"{number} (not known)"


def _section(name: str, data: schema.Data, split: schema.Split, much: Draws, legend: Legend) -> dict[str, Any]:
    # The files of a sample stay the same from draw to draw where there is no training; but only there are clips.
    has_clips = find(schema.DATASET, data.type).is_video
    dataset = build_data.dataset(data, split, much.seed, is_training=has_clips and name == "train")
    stored = _Stored(data, split)
    count = min(much.samples, len(dataset))
    blocks = []
    for place in range(count):
        index = place * len(dataset) // count
        drawn = [dataset[epoch, index] for epoch in range(much.draws)]
        blocks.append(_block(drawn, dataset, stored, legend))
    return {
        "name": name,
        "type": data.type,
        "draws_files": name == "train" and dataset.draws_files,
        "samples": len(dataset),
        "augmentations": _in_order(split.augmentations),
        "blocks": blocks,
        "draws": much.draws,
    }


def _block(drawn: Sequence[Sample], dataset: Dataset, stored: _Stored, legend: Legend) -> list[dict[str, Any]]:
    """A sample: a row for every type, with the stored image and those of all draws."""
    rows = []
    for name, kind in stored.kinds.items():
        one = drawn[0].arrays[name].ndim < 4 or len(drawn[0].arrays[name]) == 1  # a clip has no one file
        original = stored.read(name, drawn[0].keys[name]) if one else None
        if original is not None:
            legend.add(kind, original)
        cells = []
        for sample in drawn:
            legend.add(kind, sample.arrays[name])
            cells.append((_images(sample, kind, stored.kinds), _caption(sample, name)))
        rows.append(
            {
                "kind": name,
                "key": drawn[0].keys[name],
                "label": _label(drawn[0].numbers, dataset.classes, name),
                "stored": None if original is None else shown(original, kind, drawn[0].keys[name], IMAGE_PX),
                "size": "" if original is None else " × ".join(map(str, original.shape[:2])),
                "cells": cells,
            }
        )
    return rows


class _Stored:
    """The files of a split, by the names that samples have."""

    def __init__(self, data: schema.Data, split: schema.Split) -> None:
        sources = build_data.sources(data, split)
        self.kinds = {kind.name: kind for kind in build_data.input_types(data)}
        first = next(iter(self.kinds))
        of_first = FileList(sources, [source.keys(first) for source in sources])
        self.items = {
            name: of_first
            if find(schema.DATASET, data.type).is_paired or name == first
            else FileList(sources, [source.keys(name) for source in sources])
            for name in self.kinds
        }

    def read(self, name: str, key: str) -> np.ndarray | None:
        """An image as stored; None for key points, and for a frame of a video file."""
        kind = self.kinds[name]
        place = self.items[name].names.find(key)
        if place is None or kind.is_points:
            return None
        source, its_key = self.items[name][place]
        return None if is_video(source, kind) else image(source, its_key, kind)


def _images(sample: Sample, kind: InputType, kinds: Mapping[str, InputType]) -> list[Shown]:
    """What a sample holds of a type: one image, or some frames of a clip."""
    array, name = sample.arrays[kind.name], sample.keys[kind.name]
    if kind.is_points:
        beneath = next(other for other in kinds.values() if not other.is_points)
        return [with_points(sample.arrays[beneath.name], beneath, array, name, IMAGE_PX)]
    if array.ndim == 3:
        return [shown(array, kind, name, IMAGE_PX)]
    numbers = np.unique(np.linspace(0, len(array) - 1, MOST_FRAMES).round().astype(int))
    return [shown(array[number], kind, f"{name}, frame {number}", FRAME_PX) for number in numbers]


def _caption(sample: Sample, name: str) -> str:
    array = sample.arrays[name]
    height, width = array.shape[-3:-1] if array.ndim > 2 else (0, 0)
    words = [f"{height} × {width}"] if array.ndim > 2 else [f"{len(array)} points"]
    if array.ndim == 4 and len(array) > 1:
        words.append(f"{len(array)} frames from {sample.keys[name]} on")
        words.append(f"every {sample.numbers['time_step']}" if sample.numbers.get("time_step", 1) != 1 else "")
    flipped = sample.numbers.get("is_flipped", sample.numbers.get(f"is_flipped_{name}", False))
    return ", ".join(word for word in [*words, "mirrored" if flipped else ""] if word)


def _label(numbers: Mapping[str, Any], classes: Sequence[str], name: str) -> str:
    """The class of a file, by name, in sets with classes."""
    for key in ("labels", f"labels_{name.rpartition('_')[2]}"):
        if key in numbers:
            return f"class {numbers[key]}: {classes[numbers[key]]}"
    return ""


def _in_order(augmentations: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys and values in the order in which they are carried out: first the resize, wherever it stands."""
    keys = sorted(augmentations, key=lambda key: key not in ("resize_h_w", "resize_smallest_side"))
    return [(key, _text(augmentations[key])) for key in keys]


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    return "" if value is True else str(value)


def _batch(config: Config, seed: int) -> list[tuple[str, str, str, str]]:
    """Name, shape, type and range of every tensor of the first batch of a training, as the networks get it."""
    runtime = runtimes.start("cpu", single=True, local_rank=None)
    try:
        loader = build_data.train_loader(config, runtime, seed)
        loader.num_workers = 0
        batch, _ = next(loader.stream(Position()))
    finally:
        runtimes.stop(runtime)
    return [
        (name, " × ".join(map(str, tensor.shape)), str(tensor.dtype).removeprefix("torch."), _range(tensor))
        for name, tensor in batch.tensors.items()
    ]


def _range(tensor: Any) -> str:
    low, high = float(tensor.float().min()), float(tensor.float().max())
    return f"{low:.4g} to {high:.4g}"
