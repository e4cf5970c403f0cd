"""What must hold between the keys of the sections that all methods share, beyond the type of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from imagier.config import label_ops, schema
from imagier.config.augmentation_rules import broken_augmentations
from imagier.config.find import did_you_mean, find
from imagier.config.load import KeyPath, Mistake
from imagier.config.lookup import find_dataset
from imagier.config.remote_rules import broken_remote_rules
from imagier.errors import UserError


def broken_rules(run: schema.Run, metrics: Sequence[str]) -> Iterator[Mistake]:
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


def _data(data: schema.Data, key_path: KeyPath) -> Iterator[Mistake]:
    yield from _dataset_type(data.type, (*key_path, "type"))
    cls = find_dataset(data.type)
    if data.reduced_jpeg and cls is not None and not cls.reads_reduced_jpeg:
        what = f"{data.type} does not decode at reduced scale"
        yield Mistake((*key_path, "reduced_jpeg"), what, "remove it here", "has-no-effect")
    yield from _input_types(data.input_types, data.type, (*key_path, "input_types"))
    yield from broken_remote_rules(data, key_path)
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
            yield Mistake((*key_path, "input_types"), f"{name} needs num_channels", code="needs-key")
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
) -> Iterator[Mistake]:
    """Types that hold classes are maps of numbers, between which there is nothing."""
    for index, entry in enumerate(entries):
        for name, options in entry.items():
            here = (*key_path, index, name)
            if name in one_hot and not options.is_mask:
                what = "must be true: one_hot_num_classes says that these are classes"
                yield Mistake((*here, "is_mask"), what, code="not-classes")
            if name in one_hot and options.num_channels not in (None, 1):
                what = "must be 1: one_hot_num_classes says that these are classes"
                yield Mistake((*here, "num_channels"), what, code="not-classes")


def _dataset_type(name: str, key_path: KeyPath) -> Iterator[Mistake]:
    try:
        find(schema.DATASET, name)
    except UserError as error:
        yield Mistake(key_path, error.what, error.advice, error.code)


def _input_types(entries: Sequence[Mapping[str, schema.InputType]], type_: str, key_path: KeyPath) -> Iterator[Mistake]:
    names = [name for entry in entries for name in entry]
    cls = find_dataset(type_)
    needed = cls.required_input_types if cls is not None else ()
    if names and needed and sorted(names) != sorted(needed):
        what = f"{type_} reads {' and '.join(needed)}, neither more nor less"
        yield Mistake(key_path, what, f"got {', '.join(names)}", "wrong-input-types")
    if not any(entries):
        yield Mistake(key_path, "is empty", "name at least one input type", "empty")
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        for name, options in entry.items():
            here = (*key_path, index, name)
            if name in seen:
                yield Mistake(here, "stands here for the second time", code="name-taken")
            if options.computed_on_the_fly:
                what = "no op of this version makes an input type"
                yield Mistake((*here, "computed_on_the_fly"), what, code="not-supported")
            elif options.ext is None:
                yield Mistake(here, "needs ext, the extension of its files", code="needs-key")
            seen.add(name)


def _clips(split: schema.Split, key_path: KeyPath) -> Iterator[Mistake]:
    if split.initial_sequence_length is None:
        yield Mistake(key_path, "needs initial_sequence_length, the number of frames of a clip", code="needs-key")
    elif split.max_sequence_length < split.initial_sequence_length:
        what = "must not be less than initial_sequence_length"
        yield Mistake((*key_path, "max_sequence_length"), what, code="wrong-order")


def _points(data: schema.Data, named: Mapping[str, schema.InputType], key_path: KeyPath) -> Iterator[Mistake]:
    """Key points belong to images, and are none themselves."""
    points = data.keypoint_data_types
    yield from _names(points, named, (*key_path, "keypoint_data_types"))
    cls = find_dataset(data.type)
    if points and cls is not None and not cls.reads_keypoints:
        what = f"{data.type} reads no key points"
        yield Mistake((*key_path, "keypoint_data_types"), what, code="has-no-effect")
    if points and all(name in points for name in named):
        what = "leaves no type of images, in whose pixels the points could be"
        yield Mistake((*key_path, "keypoint_data_types"), what, code="no-images")
    for index, entry in enumerate(data.input_types):
        for name, options in entry.items():
            here = (*key_path, "input_types", index, name)
            if name not in points and options.ext == "json":
                advice = f"if it holds key points, add {name} to keypoint_data_types"
                yield Mistake((*here, "ext"), "an image is no JSON", advice, "not-an-image")
            elif name in points and options.ext not in (None, "json"):
                what = f"must be json: keypoint_data_types says that {name} holds key points"
                yield Mistake((*here, "ext"), what, code="not-keypoints")
            elif name in points and (options.is_mask or name in [*_one_hot(data), *data.input_image]):
                what = "is taken for an image, but keypoint_data_types says that it holds key points"
                yield Mistake(here, what, code="not-keypoints")
    for position, name in enumerate(data.input_labels):
        if name in points:
            what = f"{name} holds key points, which make no channels of a label"
            yield Mistake((*key_path, "input_labels", position), what, code="not-a-label")


def _root_weights(split: schema.Split, type_: str, key_path: KeyPath) -> Iterator[Mistake]:
    weights, here = split.root_weights, (*key_path, "root_weights")
    if weights is None:
        return
    if key_path[-1] != "train":
        yield Mistake(here, "only samples of the training set are drawn", "remove it here", "has-no-effect")
    if len(weights) != len(split.roots):
        what = f"has {len(weights)} numbers for {len(split.roots)} roots"
        yield Mistake(here, what, "give one for each", "wrong-length")
    cls = find_dataset(type_)
    if cls is not None and not cls.reads_root_weights:
        yield Mistake(here, f"{type_} does not draw by weights", code="has-no-effect")


def _shuffle(split: schema.Split, key_path: KeyPath) -> Iterator[Mistake]:
    if split.shuffle == "samples":
        return
    if key_path[-1] != "train":
        what = "only the training set is shuffled"
        yield Mistake((*key_path, "shuffle"), what, "remove it here", "has-no-effect")
    if split.root_weights is not None:
        what = "root_weights draw from all shards at any time"
        yield Mistake((*key_path, "shuffle"), what, "remove one of the two", "excludes-key")


def _names(names: Sequence[str], known: Collection[str], key_path: KeyPath) -> Iterator[Mistake]:
    for position, name in enumerate(names):
        if name not in known:
            advice = did_you_mean(name, list(known))
            yield Mistake((*key_path, position), f"no input type {name!r}", advice, "unknown-input-type")


def _split(split: schema.Split, labels: Sequence[str], key_path: KeyPath) -> Iterator[Mistake]:
    if not split.roots:
        yield Mistake((*key_path, "roots"), "is empty", "name at least one folder", "empty")
    yield from _own_type(split, labels, key_path)
    yield from broken_augmentations(split.augmentations, (*key_path, "augmentations"))


def _own_type(split: schema.Split, labels: Sequence[str], key_path: KeyPath) -> Iterator[Mistake]:
    """A validation set may be read by another data set type than the training set, but must have its labels too."""
    parts = {"type": split.type, "input_types": split.input_types, "input_image": split.input_image}
    given = [key for key, value in parts.items() if value is not None]
    if given and (key_path[-1] != "val" or len(given) < len(parts)):
        what = "type, input_types and input_image stand in the section `val`, all three of them, or in none"
        yield Mistake((*key_path, given[0]), what, code="needs-key")
    if split.type is not None:
        yield from _dataset_type(split.type, (*key_path, "type"))
    if split.input_types is not None:
        yield from _input_types(split.input_types, split.type or "", (*key_path, "input_types"))
        known = [name for entry in split.input_types for name in entry]
        yield from _names(split.input_image or [], known, (*key_path, "input_image"))
        for name in labels:
            if name not in known:
                what = f"lacks {name}, which is one of input_labels"
                yield Mistake((*key_path, "input_types"), what, code="missing-input-type")
