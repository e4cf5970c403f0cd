"""The page of `imagier data preview`: samples as stored and as the networks see them."""

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
from imagier.recipe import FEW_SHOT, Position
from imagier.run import build_data
from imagier.tools.doctor.file_stats import is_video, load_image
from imagier.tools.doctor.images import PageImage, load_template, show, to_css
from imagier.tools.doctor.splits import list_splits
from imagier.train import runtime as runtimes

IMAGE_PX, FRAME_PX = 160, 96
MAX_FRAMES = 8
HELD_OUT = 3


def render_page(config: Config, *, title: str, samples: int, draws: int, seed: int) -> str:
    """The page as one HTML file that loads nothing from elsewhere. UserError if a file of a shown sample is broken."""
    legend = Legend()
    sections = []
    for name, data, split in list_splits(config):
        if name == "train":
            sections.append(_render_split(name, data, split, Draws(samples, draws, seed), legend))
        elif name == "val":
            sections.append(_render_split(name, data, split, Draws(min(samples, HELD_OUT), 1, seed), legend))
    return load_template("preview.html").render(
        title=title, sections=sections, legends=legend.entries(), batch=_summarize_batch(config, seed), seed=seed
    )


@dataclass(frozen=True)
class Draws:
    """How many samples of a split to show, and how often to augment each."""

    samples: int
    draws: int
    seed: int


@dataclass
class Legend:
    """The classes that occur on the page."""

    seen: dict[str, tuple[int, set[int]]] = field(default_factory=dict)
    """By input type: the number of classes, and the ids on the page."""

    def add(self, codec: Codec, array: np.ndarray) -> None:
        """Adds the classes of a class map; does nothing for other types."""
        if codec.num_classes is not None:
            _, numbers = self.seen.setdefault(codec.name, (codec.num_classes, set()))
            numbers.update(np.unique(array).tolist())

    def entries(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Types with classes, each with the (name, CSS color) of its classes."""
        found = []
        for name, (num_classes, numbers) in self.seen.items():
            colors = class_colors(num_classes)
            found.append(
                (name, [(_make_class_name(number, num_classes), to_css(colors[number])) for number in sorted(numbers)])
            )
        return found


def _make_class_name(number: int, num_classes: int) -> str:
    if number < num_classes:
        return str(number)
    return f"{number} (no class)" if number == NOTHING else f"{number} (unknown)"


def _render_split(name: str, data: schema.Data, split: schema.Split, shown: Draws, legend: Legend) -> dict[str, Any]:
    # Outside of training, the files of a sample are the same in every draw; but clips exist only in training.
    has_clips = find(schema.DATASET, data.type).is_video
    dataset = build_data.build_dataset(data, split, shown.seed, is_training=has_clips and name == "train")
    stored = _StoredFiles(data, split)
    count = min(shown.samples, len(dataset))
    blocks = []
    for number in range(count):
        index = number * len(dataset) // count
        drawn = [dataset[epoch, index] for epoch in range(shown.draws)]
        blocks.append(_render_sample(drawn, dataset, stored, legend))
    return {
        "name": name,
        "type": data.type,
        "draws_files": name == "train" and dataset.draws_files,
        "samples": len(dataset),
        "augmentations": _order_augmentations(split.augmentations),
        "blocks": blocks,
    }


def _render_sample(
    drawn: Sequence[Sample], dataset: Dataset, stored: _StoredFiles, legend: Legend
) -> list[dict[str, Any]]:
    """A sample: a row for each type, with the stored image and every draw."""
    rows = []
    shown = [(f"{prefix}{name}", prefix, codec) for prefix in ("", FEW_SHOT) for name, codec in stored.codecs.items()]
    for name, prefix, codec in [each for each in shown if each[0] in drawn[0].arrays]:
        is_single = drawn[0].arrays[name].ndim < 4 or len(drawn[0].arrays[name]) == 1  # a clip has many files
        original = stored.read(codec.name, drawn[0].keys[name]) if is_single else None
        if original is not None:
            legend.add(codec, original)
        cells = []
        for sample in drawn:
            legend.add(codec, sample.arrays[name])
            cells.append((_show_arrays(sample, prefix, codec, stored.codecs), _make_caption(sample, prefix, codec)))
        rows.append(
            {
                "input_type": name,
                "key": drawn[0].keys[name].removeprefix("./"),
                "label": _make_label(drawn[0].numbers, dataset.classes, name),
                "stored": None if original is None else show(original, codec, drawn[0].keys[name], IMAGE_PX),
                "size": "" if original is None else " × ".join(map(str, original.shape[:2])),
                "cells": cells,
            }
        )
    return rows


class _StoredFiles:
    """Reads stored files by the keys of samples."""

    def __init__(self, data: schema.Data, split: schema.Split) -> None:
        sources = build_data.open_sources(data, split)
        self.codecs = {codec.name: codec for codec in build_data.build_codecs(data)}
        first = next(iter(self.codecs))
        is_paired = find(schema.DATASET, data.type).is_paired
        files_of_first = FileList(sources, [source.keys(first) for source in sources])
        self.items = {
            name: files_of_first
            if is_paired or name == first
            else FileList(sources, [source.keys(name) for source in sources])
            for name in self.codecs
        }

    def read(self, name: str, key: str) -> np.ndarray | None:
        """An image as stored; None for types without pixels and for frames of video files."""
        codec = self.codecs[name]
        index = self.items[name].names.find(key)
        if index is None or not codec.has_pixels:
            return None
        source, its_key = self.items[name][index]
        return None if is_video(source, codec) else load_image(source, its_key, codec)


def _show_arrays(sample: Sample, prefix: str, codec: Codec, codecs: Mapping[str, Codec]) -> list[PageImage]:
    """The arrays of one type in a sample: one image, or some frames of a clip."""
    array, name = sample.arrays[f"{prefix}{codec.name}"], sample.keys[f"{prefix}{codec.name}"]
    beneath = codec if codec.gives_pixels else next(other for other in codecs.values() if other.has_pixels)
    below = sample.arrays[f"{prefix}{beneath.name}"]
    if below.ndim == 3:
        canvas = None if codec.gives_pixels else beneath.to_rgb(below)
        return [show(array, codec, name, IMAGE_PX, canvas)]
    shown = []
    for number in np.unique(np.linspace(0, len(array) - 1, MAX_FRAMES).round().astype(int)):
        canvas = None if codec.gives_pixels else beneath.to_rgb(below[number])
        shown.append(show(array[number], codec, f"{name}, frame {number}", FRAME_PX, canvas))
    return shown


def _make_caption(sample: Sample, prefix: str, codec: Codec) -> str:
    name = f"{prefix}{codec.name}"
    array = sample.arrays[name]
    form = array.shape[-3:-1] if codec.gives_pixels else array.shape[-2:]
    words = [" × ".join(map(str, form))]
    if array.ndim == (4 if codec.gives_pixels else 3) and len(array) > 1:
        words.append(f"{len(array)} frames from {sample.keys[name]} on")
        steps = sample.numbers.get("time_step", 1)
        words.append(f"every {steps}" if steps != 1 and not prefix else "")
    is_flipped = sample.numbers.get(f"is_flipped_{name}", False)
    is_flipped = sample.numbers.get(f"{prefix}is_flipped", is_flipped)
    return ", ".join(word for word in [*words, "mirrored" if is_flipped else ""] if word)


def _make_label(numbers: Mapping[str, Any], classes: Mapping[str, Sequence[str]], name: str) -> str:
    """The name of a sample's class, in sets with classes."""
    for key in ("labels", f"labels_{name.rpartition('_')[2]}"):
        if key in numbers:
            return f"class {numbers[key]}: {classes[key][numbers[key]]}"
    return ""


def _order_augmentations(augmentations: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys and values in the order of execution: the resize always comes first."""
    keys = sorted(augmentations, key=lambda key: key not in ("resize_h_w", "resize_smallest_side"))
    return [(key, _format_value(augmentations[key])) for key in keys]


def _format_value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format_value(part)}" for key, part in value.items())
    return "" if value is True else str(value)


def _summarize_batch(config: Config, seed: int) -> list[tuple[str, str, str, str]]:
    """Name, shape, dtype and range of every tensor of the first training batch."""
    runtime = runtimes.start("cpu", single=True, local_rank=None)
    try:
        loader = build_data.build_train_loader(config, runtime, seed)
        loader.num_workers = 0
        batch, _ = next(loader.stream(Position()))
    finally:
        runtimes.stop(runtime)
    return [
        (name, " × ".join(map(str, tensor.shape)), str(tensor.dtype).removeprefix("torch."), _format_range(tensor))
        for name, tensor in batch.tensors.items()
    ]


def _format_range(tensor: Any) -> str:
    low, high = float(tensor.float().min()), float(tensor.float().max())
    return f"{low:.4g} to {high:.4g}"
