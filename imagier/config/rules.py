"""What must hold between the keys of a config, beyond the type of each."""

from __future__ import annotations

from collections.abc import Iterator

from imagier.config import schema
from imagier.config.find import did_you_mean, find
from imagier.config.load import Place

Broken = tuple[Place, str]


def broken_rules(run: schema.Run) -> Iterator[Broken]:
    """Every broken rule: where, and what to do."""
    for name, optimizer in (("gen_opt", run.gen_opt), ("dis_opt", run.dis_opt)):
        yield from _optimizer(optimizer, (name,))
    yield from _data(run.data, ("data",), splits=("train", "val"))
    if run.data.train is None:
        yield ("data",), "missing section 'train'"
    if run.test_data is not None:
        yield from _data(run.test_data, ("test_data",), splits=("test",))


def _optimizer(optimizer: schema.Optimizer, place: Place) -> Iterator[Broken]:
    policy = optimizer.lr_policy
    if policy.type == "linear":
        for key in ("decay_start", "decay_end", "decay_target"):
            if getattr(policy, key) is None:
                yield (*place, "lr_policy"), f"a linear policy needs {key}"
        if policy.decay_start is not None and policy.decay_end is not None and policy.decay_end <= policy.decay_start:
            yield (*place, "lr_policy", "decay_end"), "must come after decay_start"
    if optimizer.skip_grad and optimizer.clip_grad_norm is None:
        yield (*place, "skip_grad"), "needs clip_grad_norm, the norm from which a gradient is skipped"


def _data(data: schema.Data, place: Place, splits: tuple[str, ...]) -> Iterator[Broken]:
    try:
        find("data", data.type, "Dataset")
    except LookupError as error:
        yield (*place, "type"), str(error.args[0])
    names = [name for entry in data.input_types for name in entry]
    if not names:
        yield (*place, "input_types"), "is empty; name at least one input type"
    for index, entry in enumerate(data.input_types):
        for name, options in entry.items():
            yield from _input_type(options, (*place, "input_types", index, name))
    for key in ("input_labels", "input_image", "one_hot_num_classes"):
        for position, name in enumerate(getattr(data, key)):
            if name not in names:
                at = name if key == "one_hot_num_classes" else position
                yield (*place, key, at), f"no input type {name!r}{did_you_mean(name, names)}"
    channels = {name: options.num_channels for entry in data.input_types for name, options in entry.items()}
    for name in [*data.input_labels, *data.input_image]:
        if name in names and channels[name] is None and name not in data.one_hot_num_classes:
            yield (*place, "input_types"), f"{name} needs num_channels"
    for split in splits:
        part = getattr(data, split)
        if part is not None:
            yield from _split(part, (*place, split))


def _input_type(options: schema.InputType, place: Place) -> Iterator[Broken]:
    if options.computed_on_the_fly:
        yield (*place, "computed_on_the_fly"), "no op of this version makes an input type"
    elif options.ext is None:
        yield place, "needs ext, the extension of its files"


def _split(split: schema.Split, place: Place) -> Iterator[Broken]:
    if not split.roots:
        yield (*place, "roots"), "is empty; name at least one folder"
    if split.dataset_type not in (None, "folder") or split.is_lmdb:
        yield (*place, "dataset_type"), "only folders can be read by this version"
    if split.type is not None and (split.input_types is None or split.input_image is None):
        yield (*place, "type"), "a validation set of its own type needs input_types and input_image beside it"
    yield from _augmentations(split.augmentations, (*place, "augmentations"))


def _augmentations(keys: schema.AugmentationKeys, place: Place) -> Iterator[Broken]:
    sizes: dict[str, tuple[int, int]] = {}
    for key, value in keys.items():
        if key in ("resize_smallest_side", "resize_h_w", "random_crop_h_w", "center_crop_h_w"):
            size = _size(value)
            if size is None:
                yield (*place, key), f"expected 'height, width' in pixels, got {value!r}"
            else:
                sizes[key] = size
    if "resize_smallest_side" in keys and "resize_h_w" in keys:
        yield (*place, "resize_h_w"), "excludes resize_smallest_side; keep one of them"
    if not sizes and "random_resize_h_w_aspect" not in keys:
        yield place, "needs one of resize_smallest_side, resize_h_w, random_crop_h_w, center_crop_h_w"
    for key in ("random_crop_h_w", "center_crop_h_w"):
        if key in sizes:
            yield from _crop_fits(sizes, key, place)


def _crop_fits(sizes: dict[str, tuple[int, int]], key: str, place: Place) -> Iterator[Broken]:
    height, width = sizes[key]
    if "resize_h_w" in sizes:
        image_h, image_w = sizes["resize_h_w"]
        if height > image_h or width > image_w:
            yield (
                (*place, key),
                f"a crop of {height}, {width} is larger than the image (resize_h_w: {image_h}, {image_w})",
            )
    elif "resize_smallest_side" in sizes:
        least_h, least_w = sizes["resize_smallest_side"]
        if height > least_h and width > least_w:
            yield (
                (*place, key),
                (
                    f"a crop of {height}, {width} is larger than the image "
                    f"(resize_smallest_side: {least_h if least_h == least_w else f'{least_h}, {least_w}'})"
                ),
            )


def _size(value: object) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    parts = [part.strip() for part in str(value).split(",")]
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        return None
    return int(parts[0]), int(parts[1])
