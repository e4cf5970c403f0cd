"""What must hold between input types, their codecs, and the keys that say what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imagier.config import label_ops, schema
from imagier.config.find import find_or_none
from imagier.config.load import KeyPath, Mistake


def list_input_types(data: schema.Data, key_path: KeyPath) -> Iterator[tuple[KeyPath, str, schema.InputType]]:
    """Every input type: its place, its name, its keys."""
    for index, entry in enumerate(data.input_types):
        for name, options in entry.items():
            yield (*key_path, "input_types", index, name), name, options


def find_codec(data: schema.Data, name: str) -> Any:
    """The codec class of an input type; None if there is none, which `check` reports."""
    return find_or_none(schema.CODEC, label_ops.choose_codec(data, name))


def is_image(data: schema.Data, name: str) -> bool:
    """Whether an input type is read by the codec `image`, with or without its color: 1 or 3 channels."""
    options = {name: options for _, name, options in list_input_types(data, ())}[name]
    return label_ops.choose_codec(data, name) == "image" and options.num_channels in (1, 3)


def count_classes(data: schema.Data) -> Mapping[str, int]:
    """The types that are expanded into a channel per class, and how many those are."""
    found = {name: made.num_classes for name, made in label_ops.apply_ops(data).items()}
    return {name: number for name, number in found.items() if number is not None}


def count_channels(data: schema.Data) -> dict[str, int | None]:
    """Channels of the tensor of every input type, as far as the config and its codec tell."""
    channels: dict[str, int | None] = {}
    for _, name, options in list_input_types(data, ()):
        cls = find_codec(data, name)
        channels[name] = options.num_channels or (None if cls is None else cls.num_channels)
    return {**channels, **{name: number + data.use_dont_care for name, number in count_classes(data).items()}}


def check_input_types(data: schema.Data, key_path: KeyPath) -> Iterator[Mistake]:
    """What is wrong with each input type by itself. key_path: of the section or split in which they stand."""
    if not any(data.input_types):
        yield Mistake((*key_path, "input_types"), "is empty", "name at least one input type", "empty")
    cls = find_or_none(schema.DATASET, data.type)
    names = [name for _, name, _ in list_input_types(data, key_path)]
    needed = cls.required_input_types if cls is not None else ()
    if names and needed and sorted(names) != sorted(needed):
        what = f"{data.type} reads {' and '.join(needed)}, and nothing else"
        yield Mistake((*key_path, "input_types"), what, f"got {', '.join(names)}", "wrong-input-types")
    seen: set[str] = set()
    for here, name, options in list_input_types(data, key_path):
        if name in seen:
            yield Mistake(here, "is listed twice", code="name-taken")
        if options.computed_on_the_fly:
            what = "this version computes no input types"
            yield Mistake((*here, "computed_on_the_fly"), what, code="not-supported")
        elif options.ext is None:
            yield Mistake(here, "needs ext, the extension of its files", code="needs-key")
        seen.add(name)
        yield from _codec(data, name, options, here)


def _codec(data: schema.Data, name: str, options: schema.InputType, here: KeyPath) -> Iterator[Mistake]:
    """What does not fit between a codec and the keys that say that a type holds classes."""
    cls = find_codec(data, name)
    if cls is None:
        return
    says = "one_hot_num_classes says that these are classes"
    has_classes = name in count_classes(data)
    if has_classes and options.type is None and not options.is_mask:
        yield Mistake((*here, "is_mask"), f"must be true: {says}", code="not-classes")
    if has_classes and options.type is not None and not cls.holds_classes:
        yield Mistake((*here, "type"), f"{options.type} holds no classes, but {says}", code="not-classes")
    if cls.holds_classes and not has_classes:
        yield Mistake((*here, "type"), f"needs one_hot_num_classes.{name}, the number of classes", code="needs-key")
    if has_classes and options.normalize:
        yield Mistake((*here, "normalize"), f"has no effect: {says}", "remove it here", "has-no-effect")
    if cls.num_channels is not None and options.num_channels not in (None, cls.num_channels):
        what = f"must be {cls.num_channels}"
        what += f": {says}" if has_classes else f", as {options.type} determines"
        code = "not-classes" if has_classes else "different-channels"
        yield Mistake((*here, "num_channels"), what, code=code)


def check_keypoints(data: schema.Data, key_path: KeyPath) -> Iterator[Mistake]:
    """Types without pixels lie in images, and are none themselves."""
    kinds = {name: find_codec(data, name) for _, name, _ in list_input_types(data, key_path)}
    points = [name for name, cls in kinds.items() if cls is not None and not cls.has_pixels]
    places = {name: here for here, name, _ in list_input_types(data, key_path)}
    is_listed = bool(data.keypoint_data_types) or not points
    first = (*key_path, "keypoint_data_types") if is_listed else (*places[points[0]], "type")
    cls = find_or_none(schema.DATASET, data.type)
    if points and cls is not None and not cls.reads_keypoints:
        yield Mistake(first, f"{data.type} reads no key points", code="has-no-effect")
    if points and len(points) == len(kinds):
        yield Mistake(first, "leaves no type of images, in whose pixels the points could be", code="no-images")
    for here, name, options in list_input_types(data, key_path):
        if name in points:
            yield from _points(data, name, options, here)
        elif options.ext == "json" and options.type is None:
            advice = f"if it holds key points, add {name} to keypoint_data_types"
            yield Mistake((*here, "ext"), "an image is no JSON", advice, "not-an-image")
    for position, name in enumerate(data.input_labels):
        cls = kinds.get(name)
        if name in points and cls is not None and not cls.is_drawn:
            what = f"{name} holds key points, which make no channels of a label"
            yield Mistake((*key_path, "input_labels", position), what, code="not-a-label")


def _points(data: schema.Data, name: str, options: schema.InputType, here: KeyPath) -> Iterator[Mistake]:
    says = "keypoint_data_types says" if options.type is None else f"{options.type} means"
    if options.type is None and options.ext not in (None, "json"):
        yield Mistake((*here, "ext"), f"must be json: {says} that {name} holds key points", code="not-keypoints")
    elif options.is_mask or name in [*count_classes(data), *data.input_image]:
        yield Mistake(here, f"is taken for an image, but {says} that it holds key points", code="not-keypoints")
