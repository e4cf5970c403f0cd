"""From a checked config to data: sources, data sets, loaders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from imagier.config import label_ops, schema
from imagier.config.check import Config
from imagier.config.find import find
from imagier.data.augmentation.augment import crop_size, output_size
from imagier.data.codec import Codec, InputType
from imagier.data.dataset import Dataset, DatasetSpec
from imagier.data.loading.faults import OnError
from imagier.data.loading.loader import Loader
from imagier.data.loading.on_device import Expander
from imagier.data.sources.disk_cache import open_cache
from imagier.data.sources.object_store import is_remote, open_remote
from imagier.data.sources.opening import open_local
from imagier.data.sources.source import Source
from imagier.errors import UserError
from imagier.run.workers import choose_workers, warn_of_many
from imagier.train.runtime import Runtime

GROWTH_KEYS = ("single_frame_epoch", "num_epochs_temporal_step")
"""Keys of a recipe that its data set reads too: in which epoch clips have how many frames."""


def codecs(data: schema.Data) -> list[Codec]:
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
            renamed=made[name].name,
        )
        found.append(find(schema.CODEC, label_ops.choose_codec(data, name))(input_type, **options.own))
    return found


def with_workers(data: schema.Data, num_workers: int) -> schema.Data:
    """The data section with another number of workers."""
    return dataclasses.replace(data, num_workers=num_workers)


def for_validation(data: schema.Data) -> schema.Data:
    """The data section as its validation split sees it: a split may have a type and input types of its own."""
    val = data.val
    if val is None or val.type is None or val.input_types is None or val.input_image is None:
        return data
    return dataclasses.replace(data, type=val.type, input_types=val.input_types, input_image=val.input_image)


def dataset(
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
    spec = DatasetSpec(
        sources=sources(data, split) if stores is None else stores,
        codecs=codecs(data),
        augmentations=split.augmentations,
        interpolator=data.interpolator,
        is_training=is_training,
        seed=seed,
        root_weights=split.root_weights,
        reduced_jpeg=data.reduced_jpeg,
        **of_training,  # type: ignore[arg-type]
    )
    return cls(spec, **split.own)


def sources(data: schema.Data, split: schema.Split) -> list[Source]:
    """The stores of a split's files, one a root. UserError if one is not there."""
    extensions = {name: options.ext or "" for entry in data.input_types for name, options in entry.items()}
    store = split.dataset_type or ("lmdb" if split.is_lmdb else None)
    cache = open_cache(data.cache.root, int(data.cache.size_GB * 1e9)) if data.cache else None
    return [
        open_remote(
            root,
            extensions,
            store,
            credentials_file=data.aws_credentials_file,
            storage_options=data.storage_options,
            cache=cache,
        )
        if is_remote(root, store)
        else open_local(root, extensions, store)
        for root in split.roots
    ]


def expander(data: schema.Data, channels_last: bool) -> Expander:
    """What turns stored samples into the tensors that networks see."""
    return Expander(codecs(data), data.input_labels, channels_last=channels_last)


def train_loader(config: Config, runtime: Runtime, seed: int) -> Loader:
    """Batches for training: each holds the samples of all updates of an iteration. UserError if there is none."""
    data, options = config.run.data, config.recipe.options
    assert data.train is not None
    batch_size = samples_per_iteration(config)
    growth = {key: options[key] for key in GROWTH_KEYS if key in options}
    samples = dataset(data, data.train, seed, is_training=True, samples_per_step=batch_size * runtime.world, **growth)
    if data.num_classes is not None and count_classes(samples) > data.num_classes:
        raise UserError(
            (
                f"is {data.num_classes}, but the training set has {count_classes(samples)} classes (the outermost "
                "folders of its files)"
            ),
            where="data.num_classes",
            advice="correct the number",
        )
    warn_of_many(data.num_workers, runtime)
    loader = Loader(
        samples,
        batch_size,
        device=runtime.device,
        finish=expander(data, config.trainer.channels_last),
        seed=seed,
        shuffle=True,
        blocks=samples.blocks if data.train.shuffle == "shards" else None,
        on_error=OnError.RESAMPLE if data.on_error == "skip" else OnError.RAISE,
        num_workers=choose_workers(data.num_workers, runtime),
        pin_memory=runtime.pins_memory,
        copier=runtime.make_copy_stream(),
        rank=runtime.rank,
        world=runtime.world,
    )
    if loader.steps_per_epoch == 0:
        raise UserError(
            (
                f"the training set has {len(samples)} samples, fewer than one step takes "
                f"({loader.batch_size * loader.world})"
            ),
            advice="lower data.train.batch_size or add samples",
        )
    return loader


def count_classes(samples: Dataset) -> int:
    """How many classes a data set tells apart: of several labels, those of the one that has most."""
    return max(map(len, samples.classes.values()), default=0)


def samples_per_iteration(config: Config) -> int:
    """Samples that a rank takes in an iteration of the training, for all its updates."""
    options, train = config.recipe.options, config.run.data.train
    assert train is not None
    return train.batch_size * max(options.get("dis_step", 1), options.get("gen_step", 1)) * config.trainer.accumulate


def held_out_loader(config: Config, runtime: Runtime, data: schema.Data, split: schema.Split, seed: int) -> Loader:
    """Batches of a validation or test split, in order; each rank sees its share, of videos whole ones."""
    alone = data.val_data_loader_not_distributed
    samples = dataset(data, split, seed)
    batches = -(-len(samples) // (split.batch_size * (1 if alone else runtime.world)))
    return Loader(
        samples,
        split.batch_size,
        device=runtime.device,
        finish=expander(data, config.trainer.channels_last),
        blocks=samples.blocks if samples.is_video else None,
        on_error=OnError.DROP if data.on_error == "skip" else OnError.RAISE,
        num_workers=choose_workers(data.num_workers, runtime, batches=batches),
        persistent_workers=data.persistent_workers,
        pin_memory=runtime.pins_memory,
        copier=runtime.make_copy_stream(),
        rank=0 if alone else runtime.rank,
        world=1 if alone else runtime.world,
    )


def facts(data: schema.Data, split: schema.Split) -> dict[str, Any]:
    """What networks and recipes must know of the data."""
    lengths = expander(data, channels_last=False).label_lengths
    channels = {codec.name: codec.channels for codec in codecs(data)}
    size = crop_size(split.augmentations) or output_size(split.augmentations)
    known = {
        "label_lengths": lengths,
        "label_channels": sum(lengths.values()),
        "one_hot": [codec.batch_name for codec in codecs(data) if codec.num_classes is not None],
        "image_channels": sum(channels[name] or 0 for name in data.input_image),
    }
    return known if size is None else {**known, "crop_h_w": size}
