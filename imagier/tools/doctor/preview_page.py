"""A page of samples as they are stored and as the networks will see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imagier.config import schema
from imagier.config.check import Config
from imagier.config.find import find
from imagier.data.codec import Codec
from imagier.data.codecs.class_map import class_colors
from imagier.data.codecs.mask import NOTHING
from imagier.data.dataset import Dataset
from imagier.data.listing.files import FileList
from imagier.data.sample import Sample
from imagier.recipe import Position
from imagier.run import build_data
from imagier.tools.doctor.file_stats import image, is_video
from imagier.tools.doctor.images import Shown, css, show, template
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

    seen: dict[str, tuple[int, set[int]]] = field(default_factory=dict)
    """By input type: how many classes there are, and those that were seen."""

    def add(self, codec: Codec, array: np.ndarray) -> None:
        """Notes the classes of a map, if it is one."""
        if codec.num_classes is not None:
            _, numbers = self.seen.setdefault(codec.name, (codec.num_classes, set()))
            numbers.update(np.unique(array).tolist())

    def entries(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Types with classes, each with (name, color for a style sheet) of its classes."""
        found = []
        for name, (known, numbers) in self.seen.items():
            colors = class_colors(known)
            found.append((name, [(_class_name(number, known), css(colors[number])) for number in sorted(numbers)]))
        return found


def _class_name(number: int, known: int) -> str:
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
    for name, codec in stored.codecs.items():
        one = drawn[0].arrays[name].ndim < 4 or len(drawn[0].arrays[name]) == 1  # a clip has no one file
        original = stored.read(name, drawn[0].keys[name]) if one else None
        if original is not None:
            legend.add(codec, original)
        cells = []
        for sample in drawn:
            legend.add(codec, sample.arrays[name])
            cells.append((_images(sample, codec, stored.codecs), _caption(sample, codec)))
        rows.append(
            {
                "kind": name,
                "key": drawn[0].keys[name],
                "label": _label(drawn[0].numbers, dataset.classes, name),
                "stored": None if original is None else show(original, codec, drawn[0].keys[name], IMAGE_PX),
                "size": "" if original is None else " × ".join(map(str, original.shape[:2])),
                "cells": cells,
            }
        )
    return rows


class _Stored:
    """The files of a split, by the names that samples have."""

    def __init__(self, data: schema.Data, split: schema.Split) -> None:
        sources = build_data.sources(data, split)
        self.codecs = {codec.name: codec for codec in build_data.codecs(data)}
        first = next(iter(self.codecs))
        of_first = FileList(sources, [source.keys(first) for source in sources])
        self.items = {
            name: of_first
            if find(schema.DATASET, data.type).is_paired or name == first
            else FileList(sources, [source.keys(name) for source in sources])
            for name in self.codecs
        }

    def read(self, name: str, key: str) -> np.ndarray | None:
        """An image as stored; None for data without pixels, and for a frame of a video file."""
        codec = self.codecs[name]
        place = self.items[name].names.find(key)
        if place is None or not codec.has_pixels:
            return None
        source, its_key = self.items[name][place]
        return None if is_video(source, codec) else image(source, its_key, codec)


def _images(sample: Sample, codec: Codec, codecs: Mapping[str, Codec]) -> list[Shown]:
    """What a sample holds of a type: one image, or some frames of a clip."""
    array, name = sample.arrays[codec.name], sample.keys[codec.name]
    beneath = codec if codec.has_pixels else next(other for other in codecs.values() if other.has_pixels)
    below = sample.arrays[beneath.name]
    if below.ndim == 3:
        canvas = None if codec.has_pixels else beneath.to_rgb(below)
        return [show(array, codec, name, IMAGE_PX, canvas)]
    shown = []
    for number in np.unique(np.linspace(0, len(array) - 1, MOST_FRAMES).round().astype(int)):
        canvas = None if codec.has_pixels else beneath.to_rgb(below[number])
        shown.append(show(array[number], codec, f"{name}, frame {number}", FRAME_PX, canvas))
    return shown


def _caption(sample: Sample, codec: Codec) -> str:
    array, name = sample.arrays[codec.name], codec.name
    form = array.shape[-3:-1] if codec.has_pixels else array.shape[-2:]
    words = [" × ".join(map(str, form))]
    if array.ndim == (4 if codec.has_pixels else 3) and len(array) > 1:
        words.append(f"{len(array)} frames from {sample.keys[name]} on")
        words.append(f"every {sample.numbers['time_step']}" if sample.numbers.get("time_step", 1) != 1 else "")
    flipped = sample.numbers.get("is_flipped", sample.numbers.get(f"is_flipped_{name}", False))
    return ", ".join(word for word in [*words, "mirrored" if flipped else ""] if word)


def _label(numbers: Mapping[str, Any], classes: Mapping[str, Sequence[str]], name: str) -> str:
    """The class of a file, by name, in sets with classes."""
    for key in ("labels", f"labels_{name.rpartition('_')[2]}"):
        if key in numbers:
            return f"class {numbers[key]}: {classes[key][numbers[key]]}"
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
