"""What must hold between the keys of the sections that all methods share, beyond the type of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from imagier.config import label_ops, schema
from imagier.config.find import did_you_mean, find_or_none
from imagier.config.load import KeyPath, Mistake
from imagier.config.rules.augmentations import check_augmentations
from imagier.config.rules.input_types import (
    check_input_types,
    check_keypoints,
    count_channels,
    find_codec,
    is_image,
)
from imagier.config.rules.remote import check_remote


def check_run(run: schema.Run, scores: Sequence[Sequence[str]]) -> Iterator[Mistake]:
    """Every broken rule about the sections that all methods share. scores: their names, by metric."""
    if run.keep_every is not None and run.keep_last is None:
        yield Mistake(("keep_every",), "needs keep_last, without which all checkpoints stay", code="needs-key")
    yield from _keep_best(run, scores)
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


def _keep_best(run: schema.Run, scores: Sequence[Sequence[str]]) -> Iterator[Mistake]:
    names: list[str] = []
    for position, (name, *others) in enumerate(scores):
        if name in names:
            what = f"is called {name!r}, as another metric of this list is"
            yield Mistake(("metrics", position), what, code="name-taken")
        names += [name, *others]
    best = None if run.keep_best == schema.AUTO else run.keep_best
    if best is not None and best not in names:
        yield Mistake(("keep_best",), f"no metric {best!r}", did_you_mean(best, names), "unknown-metric")
    elif best is not None and run.data.val is None:
        yield Mistake(("keep_best",), f"needs data.val, the held-out set on which {best} is measured", code="needs-key")


def _data(data: schema.Data, key_path: KeyPath) -> Iterator[Mistake]:
    cls = find_or_none(schema.DATASET, data.type)
    if data.reduced_jpeg and cls is not None and not cls.reads_reduced_jpeg:
        what = f"{data.type} does not decode at reduced scale"
        yield Mistake((*key_path, "reduced_jpeg"), what, "remove it here", "has-no-effect")
    names = [name for entry in data.input_types for name in entry]
    yield from check_input_types(data, key_path)
    if data.background is not None and not any(is_image(data, name) for name in names):
        what = "no input type is an image of 1 or 3 channels, which could be laid on it"
        yield Mistake((*key_path, "background"), what, "remove it here", "has-no-effect")
    yield from check_remote(data, key_path)
    yield from _names(data.input_image, names, (*key_path, "input_image"))
    yield from _names(data.keypoint_data_types, names, (*key_path, "keypoint_data_types"))
    for mistake in label_ops.check_ops(data):
        yield mistake._replace(key_path=(*key_path, *mistake.key_path))
    yield from check_keypoints(data, key_path)
    in_label = [name for name, made in label_ops.apply_ops(data).items() if made.name in data.input_labels]
    channels = count_channels(data)
    for name in [*in_label, *data.input_image]:
        if name in channels and channels[name] is None:
            yield Mistake((*key_path, "input_types"), f"{name} needs num_channels", code="needs-key")
    for key, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        if split is not None:
            yield from _split(split, data, (*key_path, key))
            yield from _root_weights(split, split.type or data.type, (*key_path, key))
            yield from _shuffle(split, (*key_path, key))


def _label_lengths(data: schema.Data) -> list[int]:
    """Channels of the types that make up the label, in order, as far as the config tells."""
    channels = count_channels(data)
    by_name = {made.name: channels[name] or 0 for name, made in label_ops.apply_ops(data).items()}
    return [by_name[name] for name in data.input_labels if name in by_name]


def _root_weights(split: schema.Split, type_: str, key_path: KeyPath) -> Iterator[Mistake]:
    weights, here = split.root_weights, (*key_path, "root_weights")
    if weights is None:
        return
    if key_path[-1] != "train":
        yield Mistake(here, "only samples of the training set are drawn", "remove it here", "has-no-effect")
    if len(weights) != len(split.roots):
        what = f"has {len(weights)} numbers for {len(split.roots)} roots"
        yield Mistake(here, what, "give one for each", "wrong-length")
    cls = find_or_none(schema.DATASET, type_)
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


def _split(split: schema.Split, data: schema.Data, key_path: KeyPath) -> Iterator[Mistake]:
    if not split.roots:
        yield Mistake((*key_path, "roots"), "is empty", "name at least one folder", "empty")
    yield from _own_type(split, data, key_path)
    yield from check_augmentations(split.augmentations, (*key_path, "augmentations"))
    for name in [name for entry in data.input_types for name in entry]:
        cls = find_codec(data, name)
        if split.augmentations.get("max_time_step", 1) > 1 and cls is not None and cls.leads_to_previous:
            what = f"must be 1: {name} leads to the frame before, which must not be skipped"
            yield Mistake((*key_path, "augmentations", "max_time_step"), what, code="skips-frames")


def _own_type(split: schema.Split, data: schema.Data, key_path: KeyPath) -> Iterator[Mistake]:
    """A validation set may be read by another data set type than the training set, but must have its labels too."""
    parts = {"type": split.type, "input_types": split.input_types, "input_image": split.input_image}
    given = [key for key, value in parts.items() if value is not None]
    if given and key_path[-1] != "val":
        what = "only `val` may have a type, input_types and input_image of its own"
        yield Mistake((*key_path, given[0]), what, "remove it here", "not-supported")
    elif given and len(given) < len(parts):
        missing = [key for key in parts if key not in given]
        what = f"a validation set that is read in another way needs {' and '.join(missing)} too"
        yield Mistake((*key_path, given[0]), what, code="needs-key")
    if split.input_types is not None:
        yield from check_input_types(replace(data, type=split.type or "", input_types=split.input_types), key_path)
        known = [name for entry in split.input_types for name in entry]
        yield from _names(split.input_image or [], known, (*key_path, "input_image"))
        for name in data.input_labels:
            if name not in known:
                what = f"lacks {name}, which is one of input_labels"
                yield Mistake((*key_path, "input_types"), what, code="missing-input-type")
