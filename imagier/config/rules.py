"""What must hold between the keys of a config, beyond the type of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from imagier.config import label_ops, schema
from imagier.config.find import did_you_mean, find
from imagier.config.load import KeyPath, Mistake
from imagier.config.lookup import known_dataset
from imagier.errors import UserError

Broken = tuple[KeyPath, str] | Mistake
"""A place and what is wrong there, or more about it."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ASPECT = re.compile(r"\s*\d+\s*,\s*\d+\s*,\s*\(?\s*[\d.]+\s*,\s*[\d.]+\s*\)?\s*")
_SIZES = frozenset({"resize_smallest_side", "resize_h_w", "random_crop_h_w", "center_crop_h_w"})


def broken_rules(run: schema.Run, metrics: Sequence[str]) -> Iterator[Broken]:
    """Every broken rule about the sections that all methods share. metrics: the names of the run's metrics."""
    if run.keep_every is not None and run.keep_last is None:
        yield Mistake(("keep_every",), "needs keep_last, without which all checkpoints stay", code="needs-key")
    yield from _keep_best(run, metrics)
    yield from _data(run.data, ("data",))
    if run.data.train is None:
        yield Mistake(("data", "train"), "missing section", code="missing-section")
    if run.test_data is not None:
        yield from _data(run.test_data, ("test_data",))
        trained, tested = _label_lengths(run.data), _label_lengths(run.test_data)
        if trained != tested:
            lengths = [", ".join(map(str, numbers)) or "none" for numbers in (tested, trained)]
            what = f"make a label of other channels ({lengths[0]}) than those of data ({lengths[1]})"
            yield Mistake(("test_data", "input_labels"), what, "let them agree", "different-labels")


def _keep_best(run: schema.Run, metrics: Sequence[str]) -> Iterator[Mistake]:
    for position, name in enumerate(metrics):
        if name in metrics[:position]:
            what = f"is called {name!r}, as another metric of this list is"
            yield Mistake(("metrics", position), what, code="name-taken")
    best = run.keep_best
    if best is not None and best not in metrics:
        yield Mistake(("keep_best",), f"no metric {best!r}", did_you_mean(best, metrics), "unknown-metric")
    elif best is not None and run.data.val is None:
        yield Mistake(("keep_best",), f"needs data.val, the held-out set on which {best} is measured", code="needs-key")


def broken_rules_of_players(
    players: Sequence[str], optimizers: Mapping[str, schema.Optimizer], average: schema.ModelAverage
) -> Iterator[Mistake]:
    """Every broken rule about the optimizers, by their sections, and about the averages of players."""
    for section, optimizer in optimizers.items():
        if optimizer.skip_grad and optimizer.clip_grad_norm is None:
            what = "needs clip_grad_norm, the norm above which an update is skipped"
            yield Mistake((section, "skip_grad"), what, code="needs-key")
    for position, name in enumerate(average.players or []):
        if name not in players:
            key_path: KeyPath = ("trainer", "model_average_config", "players", position)
            yield Mistake(key_path, f"no player {name!r}", did_you_mean(name, players), "unknown-player")


def unusable_optimizer(cls: Any, type_: str, section: str) -> Iterator[Mistake]:
    """Why no training here can use a class of optimizers, if so."""
    parameters = list(inspect.signature(cls.step).parameters.values())[1:]
    if any(one.default is inspect.Parameter.empty and one.kind in _POSITIONAL for one in parameters):
        what = f"{type_} cannot be used: its step needs a closure that computes the loss again"
        yield Mistake((section, "type"), what, code="unusable-optimizer")
    if issubclass(cls, torch.optim.SparseAdam):
        what = f"{type_} cannot be used: it needs sparse gradients, and those of images are dense"
        yield Mistake((section, "type"), what, "adam takes them", "unusable-optimizer")


def broken_rules_of_the_method(
    data: schema.Data, method: str, reads: Sequence[str], clips: bool, networks: Mapping[str, Mapping[str, Any]]
) -> Iterator[Broken]:
    """What the data lack that a method reads, or have with other channels than its networks are for.

    reads, clips: as Recipe.required_inputs, Recipe.is_video. networks: the options of each, by its section.
    """
    own_type = None if data.val is None else data.val.type
    for here, type_ in ((("data", "type"), data.type), (("data", "val", "type"), own_type)):
        if type_ is not None and find(schema.DATASET, type_).is_video != clips:
            kinds = ("stills", "clips") if clips else ("clips", "stills")
            yield here, f"gives {kinds[0]}, but {method} reads {kinds[1]}"
    if "label" in reads and not data.input_labels:
        yield ("data", "input_labels"), f"is empty; name the types that make up the label, which {method} reads"
    key = "num_image_channels"
    channels = {f"{section}.{key}": options[key] for section, options in networks.items() if key in options}
    sets: list[tuple[KeyPath, schema.Data]] = [(("data",), data)]
    if data.val is not None and data.val.input_types is not None:
        own = replace(data, input_types=data.val.input_types, input_image=data.val.input_image or [])
        sets.append((("data", "val"), own))
    for key_path, of_place in sets:
        called = {name: made.name for name, made in label_ops.made(of_place).items()}
        needed = [name for name in reads if name != "label"]
        yield from _images(of_place.input_types, called, needed, channels, method, key_path)
        image = [called.get(name, name) for name in of_place.input_image]
        if "images" in reads and image != ["images"]:
            yield (*key_path, "input_image"), f"must be [images], which {method} reads; got [{', '.join(image)}]"


def _images(
    entries: Sequence[Mapping[str, schema.InputType]],
    called: Mapping[str, str],
    needed: Sequence[str],
    channels: Mapping[str, int],
    method: str,
    key_path: KeyPath,
) -> Iterator[Broken]:
    """called: the name in a batch of each input type."""
    of_config = {name: kind for kind, name in called.items()}
    found = {name: (index, options) for index, entry in enumerate(entries) for name, options in entry.items()}
    for name in needed:
        if name not in of_config:
            yield (*key_path, "input_types"), f"lacks {name}, which {method} reads"
            continue
        kind = of_config[name]
        index, options = found[kind]
        for key, number in channels.items():
            if options.num_channels not in (None, number):
                message = f"is {options.num_channels}, but {key} is {number}; make them the same"
                yield (*key_path, "input_types", index, kind, "num_channels"), message


def _data(data: schema.Data, key_path: KeyPath) -> Iterator[Broken]:
    yield from _dataset_type(data.type, (*key_path, "type"))
    cls = known_dataset(data.type)
    if data.reduced_jpeg and cls is not None and not cls.reads_reduced_jpeg:
        yield (*key_path, "reduced_jpeg"), f"{data.type} does not decode at reduced scale; remove it here"
    yield from _input_types(data.input_types, data.type, (*key_path, "input_types"))
    named = {name: options for entry in data.input_types for name, options in entry.items()}
    yield from _names(data.input_image, named, (*key_path, "input_image"))
    for mistake in label_ops.wrong_ops(data):
        yield mistake._replace(key_path=(*key_path, *mistake.key_path))
    yield from _points(data, named, key_path)
    yield from _classes(data.input_types, _one_hot(data), (*key_path, "input_types"))
    if data.val is not None and data.val.input_types is not None:
        one_hot = _one_hot(replace(data, input_types=data.val.input_types))
        yield from _classes(data.val.input_types, one_hot, (*key_path, "val", "input_types"))
    in_label = [name for name, made in label_ops.made(data).items() if made.name in data.input_labels]
    for name in [*in_label, *data.input_image]:
        if name in named and named[name].num_channels is None and name not in _one_hot(data):
            yield (*key_path, "input_types"), f"{name} needs num_channels"
    for key, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        if split is not None:
            yield from _split(split, data.input_labels, (*key_path, key))
            yield from _root_weights(split, split.type or data.type, (*key_path, key))
            yield from _shuffle(split, (*key_path, key))
            if key == "train" and cls is not None and cls.is_video:
                yield from _clips(split, (*key_path, key))


def _one_hot(data: schema.Data) -> Mapping[str, int]:
    """The types that are expanded into a channel per class, and how many those are."""
    found = {name: made.num_classes for name, made in label_ops.made(data).items()}
    return {name: number for name, number in found.items() if number is not None}


def _label_lengths(data: schema.Data) -> list[int]:
    """Channels of the types that make up the label, in order, as far as the config tells."""
    channels = {name: options.num_channels or 0 for entry in data.input_types for name, options in entry.items()}
    channels |= {name: number + data.use_dont_care for name, number in _one_hot(data).items()}
    by_name = {made.name: channels[name] for name, made in label_ops.made(data).items()}
    return [by_name[name] for name in data.input_labels if name in by_name]


def _classes(
    entries: Sequence[Mapping[str, schema.InputType]], one_hot: Collection[str], key_path: KeyPath
) -> Iterator[Broken]:
    """Types that hold classes are maps of numbers, between which there is nothing."""
    for index, entry in enumerate(entries):
        for name, options in entry.items():
            here = (*key_path, index, name)
            if name in one_hot and not options.is_mask:
                yield (*here, "is_mask"), "must be true: one_hot_num_classes says that these are classes"
            if name in one_hot and options.num_channels not in (None, 1):
                yield (*here, "num_channels"), "must be 1: one_hot_num_classes says that these are classes"


def _dataset_type(name: str, key_path: KeyPath) -> Iterator[Broken]:
    try:
        find(schema.DATASET, name)
    except UserError as error:
        yield Mistake(key_path, error.what, error.advice, error.code)


def _input_types(entries: Sequence[Mapping[str, schema.InputType]], type_: str, key_path: KeyPath) -> Iterator[Broken]:
    names = [name for entry in entries for name in entry]
    cls = known_dataset(type_)
    needed = cls.required_input_types if cls is not None else ()
    if names and needed and sorted(names) != sorted(needed):
        yield key_path, f"{type_} reads {' and '.join(needed)}, neither more nor less; got {', '.join(names)}"
    if not any(entries):
        yield key_path, "is empty; name at least one input type"
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        for name, options in entry.items():
            here = (*key_path, index, name)
            if name in seen:
                yield here, "stands here for the second time"
            if options.computed_on_the_fly:
                yield (*here, "computed_on_the_fly"), "no op of this version makes an input type"
            elif options.ext is None:
                yield here, "needs ext, the extension of its files"
            seen.add(name)


def _clips(split: schema.Split, key_path: KeyPath) -> Iterator[Broken]:
    if split.initial_sequence_length is None:
        yield key_path, "needs initial_sequence_length, the number of frames of a clip"
    elif split.max_sequence_length < split.initial_sequence_length:
        yield (*key_path, "max_sequence_length"), "must not be less than initial_sequence_length"


def _points(data: schema.Data, named: Mapping[str, schema.InputType], key_path: KeyPath) -> Iterator[Broken]:
    """Key points belong to images, and are none themselves."""
    points = data.keypoint_data_types
    yield from _names(points, named, (*key_path, "keypoint_data_types"))
    cls = known_dataset(data.type)
    if points and cls is not None and not cls.reads_keypoints:
        yield (*key_path, "keypoint_data_types"), f"{data.type} reads no key points"
    if points and all(name in points for name in named):
        yield (*key_path, "keypoint_data_types"), "leaves no type of images, in whose pixels the points could be"
    for index, entry in enumerate(data.input_types):
        for name, options in entry.items():
            here = (*key_path, "input_types", index, name)
            if name not in points and options.ext == "json":
                yield (*here, "ext"), f"an image is no JSON; if it holds key points, add {name} to keypoint_data_types"
            elif name in points and options.ext not in (None, "json"):
                yield (*here, "ext"), f"must be json: keypoint_data_types says that {name} holds key points"
            elif name in points and (options.is_mask or name in [*_one_hot(data), *data.input_image]):
                yield here, "is taken for an image, but keypoint_data_types says that it holds key points"
    for position, name in enumerate(data.input_labels):
        if name in points:
            yield (*key_path, "input_labels", position), f"{name} holds key points, which make no channels of a label"


def _root_weights(split: schema.Split, type_: str, key_path: KeyPath) -> Iterator[Broken]:
    weights, here = split.root_weights, (*key_path, "root_weights")
    if weights is None:
        return
    if key_path[-1] != "train":
        yield here, "only samples of the training set are drawn; remove it here"
    if len(weights) != len(split.roots):
        yield here, f"has {len(weights)} numbers for {len(split.roots)} roots; give one for each"
    cls = known_dataset(type_)
    if cls is not None and not cls.reads_root_weights:
        yield here, f"{type_} does not draw by weights"


def _shuffle(split: schema.Split, key_path: KeyPath) -> Iterator[Broken]:
    if split.shuffle == "samples":
        return
    if key_path[-1] != "train":
        yield (*key_path, "shuffle"), "only the training set is shuffled; remove it here"
    if split.root_weights is not None:
        yield (*key_path, "shuffle"), "root_weights draw from all shards at any time; remove one of the two"


def _names(names: Sequence[str], known: Collection[str], key_path: KeyPath) -> Iterator[Broken]:
    for position, name in enumerate(names):
        if name not in known:
            advice = did_you_mean(name, list(known))
            yield Mistake((*key_path, position), f"no input type {name!r}", advice, "unknown-input-type")


def _split(split: schema.Split, labels: Sequence[str], key_path: KeyPath) -> Iterator[Broken]:
    if not split.roots:
        yield (*key_path, "roots"), "is empty; name at least one folder"
    if split.dataset_type not in ("object_store", "shards") and any(root.startswith("s3://") for root in split.roots):
        yield (*key_path, "dataset_type"), "must be object_store or shards: a root begins with s3://"
    yield from _own_type(split, labels, key_path)
    yield from _augmentations(split.augmentations, (*key_path, "augmentations"))


def _own_type(split: schema.Split, labels: Sequence[str], key_path: KeyPath) -> Iterator[Broken]:
    """A validation set may be read by another data set type than the training set, but must have its labels too."""
    parts = {"type": split.type, "input_types": split.input_types, "input_image": split.input_image}
    given = [key for key, value in parts.items() if value is not None]
    if given and (key_path[-1] != "val" or len(given) < len(parts)):
        yield (
            (*key_path, given[0]),
            "type, input_types and input_image stand in the section `val`, all three of them, or in none",
        )
    if split.type is not None:
        yield from _dataset_type(split.type, (*key_path, "type"))
    if split.input_types is not None:
        yield from _input_types(split.input_types, split.type or "", (*key_path, "input_types"))
        known = [name for entry in split.input_types for name in entry]
        yield from _names(split.input_image or [], known, (*key_path, "input_image"))
        for name in labels:
            if name not in known:
                yield (*key_path, "input_types"), f"lacks {name}, which is one of input_labels"


def _augmentations(keys: schema.AugmentationKeys, key_path: KeyPath) -> Iterator[Broken]:
    sizes: dict[str, tuple[int, int]] = {}
    for key in _SIZES & keys.keys():
        value = dict(keys)[key]
        size = _size(value)
        if size is None:
            yield (*key_path, key), f"expected 'height, width' in pixels, got {value!r}"
        else:
            sizes[key] = size
    if "resize_smallest_side" in keys and "resize_h_w" in keys:
        yield (*key_path, "resize_h_w"), "excludes resize_smallest_side; keep one of them"
    if not (_SIZES | {"random_resize_h_w_aspect"}) & keys.keys():
        yield key_path, "needs one of resize_smallest_side, resize_h_w, random_crop_h_w, center_crop_h_w"
    for key in ("random_crop_h_w", "center_crop_h_w"):
        if key in sizes and "random_resize_h_w_aspect" not in keys:
            yield from _crop_fits(sizes, key, key_path)
    aspect = keys.get("random_resize_h_w_aspect")
    if aspect is not None and not _ASPECT.fullmatch(aspect):
        message = f"expected 'height, width, (smallest aspect, largest aspect)', got {aspect!r}"
        yield (*key_path, "random_resize_h_w_aspect"), message
    gamma = keys.get("gamma")
    if gamma is not None and gamma["gamma_limit_lb"] > gamma["gamma_limit_ub"]:
        yield (*key_path, "gamma", "gamma_limit_ub"), "must not be less than gamma_limit_lb"


def _crop_fits(sizes: dict[str, tuple[int, int]], key: str, key_path: KeyPath) -> Iterator[Broken]:
    height, width = sizes[key]
    if "resize_h_w" in sizes:
        image_h, image_w = sizes["resize_h_w"]
        if height > image_h or width > image_w:
            yield (
                (*key_path, key),
                f"a crop of {height}, {width} is larger than the image (resize_h_w: {image_h}, {image_w})",
            )
    elif "resize_smallest_side" in sizes:
        least_h, least_w = sizes["resize_smallest_side"]
        if height > least_h and width > least_w:
            yield (
                (*key_path, key),
                (
                    f"a crop of {height}, {width} is larger than the image "
                    f"(resize_smallest_side: {least_h if least_h == least_w else f'{least_h}, {least_w}'})"
                ),
            )


def _size(value: object) -> tuple[int, int] | None:
    parts = [part.strip() for part in str(value).split(",")]
    if isinstance(value, int):
        parts *= 2
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        return None
    return int(parts[0]), int(parts[1])
