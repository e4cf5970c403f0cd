"""From a checked config to data: sources, data sets, loaders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from imagier.config import label_ops, schema
from imagier.config.check import Config
from imagier.config.find import find
from imagier.data.augmentation.augment import get_crop_size, get_output_size, parse_h_w
from imagier.data.codec import Codec, InputType
from imagier.data.dataset import Dataset, DatasetSpec
from imagier.data.loading.faults import OnError
from imagier.data.loading.loader import Loader
from imagier.data.loading.on_device import Expander
from imagier.data.sources.compute_lock import ComputeLock
from imagier.data.sources.disk_cache import open_cache
from imagier.data.sources.object_store import is_remote, open_remote
from imagier.data.sources.opening import open_local
from imagier.data.sources.source import Source
from imagier.errors import UserError
from imagier.run.workers import choose_workers, warn_of_many
from imagier.train.runtime import Runtime


def build_codecs(data: schema.Data) -> list[Codec]:
    """One for each input type of a data section, in order."""
    made = label_ops.apply_ops(data)
    found = []
    for name, options in ((name, options) for entry in data.input_types for name, options in entry.items()):
        input_type = InputType(
            name=name,
            ext=options.ext or "",
            num_channels=options.num_channels,
            normalize=options.normalize,
            num_classes=made[name].num_classes,
            use_dont_care=data.use_dont_care,
            dont_care=made[name].dont_care,
            background=None if data.background is None else tuple(data.background),  # type: ignore[arg-type]
            renamed=made[name].name,
        )
        found.append(find(schema.CODEC, label_ops.choose_codec(data, name))(input_type, **options.own))
    return found


def select_validation_data(data: schema.Data) -> schema.Data:
    """The data section as its validation split sees it: a split may have a type and input types of its own."""
    val = data.val
    if val is None or val.type is None or val.input_types is None or val.input_image is None:
        return data
    return dataclasses.replace(data, type=val.type, input_types=val.input_types, input_image=val.input_image)


def select_input_types(data: schema.Data, names: Sequence[str]) -> schema.Data:
    """The data section with these input types alone, as a set of pairs if its own type needs others, too."""
    given = [{name: options for name, options in entry.items() if name in names} for entry in data.input_types]
    required = find(schema.DATASET, data.type).required_input_types
    return dataclasses.replace(
        data,
        type=data.type if set(required) <= set(names) else schema.DEFAULT_DATASET,
        input_types=[entry for entry in given if entry],
        input_labels=data.input_labels if any(name in data.input_labels for name in names) else [],
    )


def build_dataset(
    data: schema.Data,
    split: schema.Split,
    seed: int,
    *,
    stores: Sequence[Source] | None = None,
    is_training: bool = False,
    **of_training: int | None,
) -> Dataset:
    """The data set of one split. UserError if its folders or files are not as the config says.

    stores: what to read from, if not the split's roots. is_training: draw files, where the data set type does so in
    training. of_training: further fields of the spec.
    """
    cls = find(schema.DATASET, data.type)
    is_waited_for = stores is None and any(is_remote(root, _find_store(split)) for root in split.roots)
    compute_lock = ComputeLock() if is_waited_for else None
    spec = DatasetSpec(
        sources=open_sources(data, split, compute_lock) if stores is None else stores,
        compute_lock=compute_lock,
        codecs=build_codecs(data),
        augmentations=split.augmentations,
        interpolator=data.interpolator,
        is_training=is_training,
        seed=seed,
        root_weights=split.root_weights,
        reduced_jpeg=data.reduced_jpeg,
        **of_training,  # type: ignore[arg-type]
    )
    return cls(spec, **split.own)


def open_sources(data: schema.Data, split: schema.Split, compute_lock: ComputeLock | None = None) -> list[Source]:
    """The stores of a split's files, one a root. UserError if one is not there. compute_lock: as of `DatasetSpec`."""
    extensions = {name: options.ext or "" for entry in data.input_types for name, options in entry.items()}
    store = _find_store(split)
    cache = open_cache(data.cache.root, int(data.cache.size_GB * 1e9)) if data.cache else None
    return [
        open_remote(
            root,
            extensions,
            store,
            credentials_file=data.aws_credentials_file,
            storage_options=data.storage_options,
            cache=cache,
            compute_lock=compute_lock,
        )
        if is_remote(root, store)
        else open_local(root, extensions, store)
        for root in split.roots
    ]


def _find_store(split: schema.Split) -> str | None:
    return split.dataset_type or ("lmdb" if split.is_lmdb else None)


def build_expander(data: schema.Data, channels_last: bool) -> Expander:
    """What turns stored samples into the tensors that networks see."""
    return Expander(build_codecs(data), data.input_labels, channels_last=channels_last)


def build_train_loader(
    config: Config, runtime: Runtime, seed: int, *, stores: Sequence[Source] | None = None
) -> Loader:
    """Batches for training: each holds the samples of all updates of an iteration. UserError if there is none.

    stores: as of `build_dataset`.
    """
    data = config.run.data
    assert data.train is not None
    batch_size = count_samples_per_iteration(config)
    keys = _read_recipe_keys(config, "data_keys", [field.name for field in dataclasses.fields(DatasetSpec)])
    samples = build_dataset(
        data, data.train, seed, stores=stores, is_training=True, samples_per_step=batch_size * runtime.world, **keys
    )
    _check_classes(data, samples)
    warn_of_many(data.num_workers, runtime)
    expander = build_expander(data, config.trainer.channels_last)
    loader = Loader(
        samples,
        batch_size,
        device=runtime.device,
        finish=expander,
        seed=seed,
        shuffle=True,
        blocks=samples.blocks if data.train.shuffle == "shards" else None,
        on_error=OnError.RESAMPLE if data.on_error == "skip" else OnError.RAISE,
        num_workers=choose_workers(data.num_workers, runtime),
        pin_memory=runtime.pins_memory,
        copier=runtime.make_copy_stream(),
        find_present=expander.find_present,
        rank=runtime.rank,
        world=runtime.world,
    )
    if loader.steps_per_epoch == 0:
        raise UserError(
            (f"the training set has {len(samples)} samples, fewer than one step takes ({loader.samples_per_step})"),
            advice="lower data.train.batch_size or add samples",
            code="too-few-samples",
        )
    return loader


def _check_classes(data: schema.Data, samples: Dataset) -> None:
    found = count_classes(samples)
    if data.num_classes is not None and found > data.num_classes:
        raise UserError(
            f"is {data.num_classes}, but the training set has {found} classes (the outermost folders of its files)",
            where="data.num_classes",
            advice="correct the number",
            code="too-many-classes",
        )


def count_classes(samples: Dataset) -> int:
    """How many classes a data set tells apart: of several labels, those of the one that has most."""
    return max(map(len, samples.classes.values()), default=0)


def count_samples_per_iteration(config: Config) -> int:
    """Samples that a rank takes in an iteration of the training, for all its updates."""
    train = config.run.data.train
    assert train is not None
    steps = _read_recipe_keys(config, "steps_keys")
    return train.batch_size * max(steps.values(), default=1) * config.trainer.accumulate


def _read_recipe_keys(config: Config, attribute: str, known: Sequence[str] | None = None) -> dict[str, Any]:
    """The values of the keys that an attribute of the recipe's class names.

    UserError if one is no argument of its constructor, or none of `known`.
    """
    cls, options = config.recipe.cls, config.recipe.options
    names = getattr(cls, attribute)
    for name in names:
        if name not in options or (known is not None and name not in known):
            what = "no argument of the constructor" if name not in options else "no field of DatasetSpec"
            where = f"{cls.__module__}.{cls.__qualname__}.{attribute}"
            raise UserError(f"{name} is {what}", where=where, code="unknown-key")
    return {name: options[name] for name in names}


def build_validation_loader(config: Config, runtime: Runtime, seed: int) -> Loader | None:
    """Batches of the validation set of a training, in order; None if the config has none."""
    data = config.run.data
    if data.val is None:
        return None
    return build_held_out_loader(config, runtime, select_validation_data(data), data.val, seed)


def build_held_out_loader(
    config: Config,
    runtime: Runtime,
    data: schema.Data,
    split: schema.Split,
    seed: int,
    *,
    samples: Dataset | None = None,
) -> Loader:
    """Batches of a validation or test split, in order; each rank sees its share, of videos whole ones.

    samples: the data set of the split, if it is built already.
    """
    alone = data.val_data_loader_not_distributed
    samples = build_dataset(data, split, seed) if samples is None else samples
    batches = -(-len(samples) // (split.batch_size * (1 if alone else runtime.world)))
    expander = build_expander(data, config.trainer.channels_last)
    return Loader(
        samples,
        split.batch_size,
        device=runtime.device,
        finish=expander,
        blocks=samples.blocks if samples.is_video else None,
        on_error=OnError.DROP if data.on_error == "skip" else OnError.RAISE,
        num_workers=choose_workers(data.num_workers, runtime, batches=batches),
        persistent_workers=data.persistent_workers,
        pin_memory=runtime.pins_memory,
        copier=runtime.make_copy_stream(),
        find_present=expander.find_present,
        rank=0 if alone else runtime.rank,
        world=1 if alone else runtime.world,
    )


def list_plain_labels(config: Config) -> list[str]:
    """The input types of the label, without those that the recipe reads as numbers of instances."""
    labels, numbers = config.run.data.input_labels, config.recipe.cls.instance_inputs
    found = build_codecs(config.run.data)
    return [codec.name for codec in found if codec.batch_name in labels and codec.name not in numbers]


def collect_facts(data: schema.Data, split: schema.Split) -> dict[str, Any]:
    """What networks and recipes must know of the data."""
    lengths = build_expander(data, channels_last=False).label_lengths
    channels = {codec.name: codec.channels for codec in build_codecs(data)}
    size = _find_size(split)
    if size is None and data.val is not None and find(schema.DATASET, data.type).is_video:
        size = _find_size(data.val)  # as the reference did: clips of training that are cut out have the same size
    known = {
        "label_lengths": lengths,
        "label_channels": sum(lengths.values()),
        "one_hot": [codec.batch_name for codec in build_codecs(data) if codec.num_classes is not None],
        "normalized": [codec.batch_name for codec in build_codecs(data) if codec.input_type.normalize],
        "image_channels": sum(channels[name] or 0 for name in data.input_image),
        "num_references": split.own.get("initial_few_shot_K", 1),
    }
    return known if size is None else {**known, "crop_h_w": size}


def _find_size(split: schema.Split) -> tuple[int, int] | None:
    """Height and width of all images of a split, or of the crops; None if they differ from image to image."""
    cut = split.own.get("output_h_w")
    return parse_h_w(cut) if cut else get_crop_size(split.augmentations) or get_output_size(split.augmentations)
