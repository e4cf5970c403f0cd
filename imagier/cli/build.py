"""From a checked config to objects: data, networks, recipe, players."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from imagier.config import label_ops, schema
from imagier.config.check import Component, Config
from imagier.config.find import find
from imagier.config.rules import has_clips
from imagier.data.augment import crop_size, output_size
from imagier.data.label import Expander
from imagier.data.loader import Dataset, Loader
from imagier.data.sample import InputType
from imagier.data.source import Source
from imagier.data.sources.disk_cache import shared_cache
from imagier.data.sources.object_store import is_remote, open_remote
from imagier.data.sources.opening import open_local
from imagier.errors import UserError
from imagier.nn.average import ModelAverage, reestimate_batch_norm
from imagier.nn.init import initialize
from imagier.recipe import Recipe
from imagier.train import schedule
from imagier.train.optim import Fromage, Madam
from imagier.train.player import Player, Schedule
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer
from imagier.train.view import View

GROWTH_OF_CLIPS = ("single_frame_epoch", "num_epochs_temporal_step")
"""Keys of a recipe that its data set reads too: in which epoch clips have how many frames."""


def input_types(data: schema.Data) -> list[InputType]:
    """The input types of a data section, in order."""
    made = label_ops.made(data)
    return [
        InputType(
            name=name,
            ext=options.ext or "",
            num_channels=options.num_channels,
            normalize=options.normalize,
            is_mask=options.is_mask,
            num_classes=made[name].num_classes,
            dont_care=made[name].dont_care,
            renamed=made[name].name,
            is_points=name in data.keypoint_data_types,
        )
        for entry in data.input_types
        for name, options in entry.items()
    ]


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
    data: schema.Data, split: schema.Split, seed: int, *, training: bool = False, **of_clips: int | None
) -> Dataset:
    """The data set of one split. UserError if its folders or files are not as the config says.

    training: draw files, where the data set type does so in training. of_clips: what a data set type of clips needs to
    know of the training (samples_per_step, the growth of a clip); others do not ask for it.
    """
    cls = find("data", data.type, "Dataset")
    of_some = {
        "root_weights": split.root_weights,
        "reduced_jpeg": data.reduced_jpeg,
        "initial_sequence_length": split.initial_sequence_length,
        "max_sequence_length": split.max_sequence_length,
        **of_clips,
    }
    wanted = inspect.signature(cls).parameters
    return cls(
        sources(data, split),
        input_types=input_types(data),
        augmentations=split.augmentations,
        interpolator=data.interpolator,
        use_dont_care=data.use_dont_care,
        training=training,
        seed=seed,
        **{name: value for name, value in of_some.items() if name in wanted},
    )


def sources(data: schema.Data, split: schema.Split) -> list[Source]:
    """The stores of a split's files, one a root. UserError if one is not there."""
    extensions = {kind.name: kind.ext for kind in input_types(data)}
    store = split.dataset_type or ("lmdb" if split.is_lmdb else None)
    cache = shared_cache(data.cache.root, int(data.cache.size_GB * 1e9)) if data.cache else None
    return [
        open_remote(root, extensions, store, credentials_file=data.aws_credentials_file, cache=cache)
        if is_remote(root, store)
        else open_local(root, extensions, store)
        for root in split.roots
    ]


def expander(data: schema.Data, channels_last: bool) -> Expander:
    """What turns stored samples into the tensors that networks see."""
    return Expander(input_types(data), data.input_labels, use_dont_care=data.use_dont_care, channels_last=channels_last)


def train_loader(config: Config, runtime: Runtime, seed: int) -> Loader:
    """Batches for training: each holds the samples of all updates of an iteration. UserError if there is none."""
    data, options = config.run.data, config.recipe.options
    assert data.train is not None
    batch_size = samples_per_iteration(config)
    growth = {key: options[key] for key in GROWTH_OF_CLIPS if key in options}
    samples = dataset(data, data.train, seed, training=True, samples_per_step=batch_size * runtime.world, **growth)
    if data.num_classes is not None and len(samples.classes) > data.num_classes:
        raise UserError(
            f"data.num_classes: is {data.num_classes}, but the training set has {len(samples.classes)} classes "
            "(the outermost folders of its files); correct the number"
        )
    loader = Loader(
        samples,
        batch_size,
        device=runtime.device,
        finish=expander(data, config.trainer.channels_last),
        seed=seed,
        shuffle=True,
        blocks=samples.blocks if data.train.shuffle == "shards" else None,
        on_error="replace" if data.on_error == "skip" else "stop",
        num_workers=data.num_workers,
        pin_memory=runtime.pins_memory,
        copier=runtime.copier(),
        rank=runtime.rank,
        world=runtime.world,
    )
    if loader.steps_per_epoch == 0:
        raise UserError(
            f"the training set has {len(samples)} samples, fewer than one step takes "
            f"({loader.batch_size * loader.world}); lower data.train.batch_size or add samples"
        )
    return loader


def samples_per_iteration(config: Config) -> int:
    """Samples that a rank takes in an iteration of the training, for all its updates."""
    options, train = config.recipe.options, config.run.data.train
    assert train is not None
    return train.batch_size * max(options.get("dis_step", 1), options.get("gen_step", 1)) * config.trainer.accumulate


def held_out_loader(config: Config, runtime: Runtime, data: schema.Data, split: schema.Split, seed: int) -> Loader:
    """Batches of a validation or test split, in order; each rank sees its share, of videos whole ones."""
    alone = data.val_data_loader_not_distributed
    samples = dataset(data, split, seed)
    clips = has_clips(data.type)
    return Loader(
        samples,
        split.batch_size,
        device=runtime.device,
        finish=expander(data, config.trainer.channels_last),
        blocks=samples.blocks if clips else None,
        on_error="leave out" if data.on_error == "skip" else "stop",
        num_workers=data.num_workers,
        persistent_workers=data.persistent_workers,
        pin_memory=runtime.pins_memory,
        copier=runtime.copier(),
        rank=0 if alone else runtime.rank,
        world=1 if alone else runtime.world,
    )


def facts(data: schema.Data, split: schema.Split) -> dict[str, Any]:
    """What networks and recipes must know of the data."""
    lengths = expander(data, channels_last=False).label_lengths
    kinds = input_types(data)
    channels = {kind.name: kind.num_channels for kind in kinds}
    size = crop_size(split.augmentations) or output_size(split.augmentations)
    known = {
        "label_lengths": lengths,
        "label_channels": sum(lengths.values()),
        "one_hot": [kind.renamed or kind.name for kind in kinds if kind.num_classes is not None],
        "image_channels": sum(channels[name] or 0 for name in data.input_image),
    }
    return known if size is None else {**known, "crop_h_w": size}


def recipe(config: Config, runtime: Runtime, seed: int, **known: Any) -> Recipe:
    """The networks, with their first weights, and the recipe that trains them, on the device. The same on all ranks.

    known: facts that the files tell, beside those of the config (`style_classes`, the number of classes).
    """
    made = _constructed(config, seed, known)
    init = config.trainer.init
    for network in made.networks.values():  # before they are placed: the same draws on every device and in every layout
        initialize(network, init.type, init.gain, init.bias.gain if init.bias else None)
    try:
        loss_networks = made.load_losses()
    except UserError as error:
        raise UserError(f"trainer: {error}") from error
    for network in (*made.networks.values(), *loss_networks):
        _place(network, config, runtime)
    return made


def untrained(config: Config, runtime: Runtime, seed: int = 0, **known: Any) -> Recipe:
    """The recipe with its networks as they were constructed, on the device; it can make pictures, but not learn."""
    made = _constructed(config, seed, known)
    for network in made.networks.values():
        _place(network, config, runtime)
    return made


def _constructed(config: Config, seed: int, known: Mapping[str, Any]) -> Recipe:
    split = config.run.data.train
    assert split is not None
    known = {**facts(config.run.data, split), **known}
    torch.manual_seed(seed)
    gen = _built(config.gen, "gen", known)
    dis = _built(config.dis, "dis", known)
    made: Recipe = _built(config.recipe, "trainer", {**known, "gen": gen, "dis": dis})
    if config.trainer.accumulate > 1:
        made.one_forward = False  # else the generator's graphs of all parts would be in memory together
    return made


def _place(network: nn.Module, config: Config, runtime: Runtime) -> None:
    memory_format = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    network.to(runtime.device).to(memory_format=memory_format)  # type: ignore[call-overload]


def _built(component: Component, section: str, known: Mapping[str, Any]) -> Any:
    size = inspect.signature(component.cls).parameters.get("crop_h_w")
    if size is not None and size.default is inspect.Parameter.empty and "crop_h_w" not in known:
        raise UserError("data.train.augmentations: needs a crop (random_crop_h_w) or resize_h_w, the size to train at")
    try:
        return component.build(**known)
    except UserError as error:
        raise UserError(f"{section}: {error}") from error


def players(config: Config, made: Recipe, runtime: Runtime) -> dict[str, Player]:
    """What belongs to the weights of each network of a recipe."""
    optimizers = {"gen": config.run.gen_opt, "dis": config.run.dis_opt}
    return {
        name: Player(
            network,
            optimizer(network, optimizers[name]),
            runtime,
            schedule=_schedule(optimizers[name].lr_policy),
            by_iteration=optimizers[name].lr_policy.iteration_mode,
            clip_grad_norm=optimizers[name].clip_grad_norm,
            skip_large_grads=optimizers[name].skip_grad,
            scaler=_scaler(config.trainer.amp_config, runtime),
            average=average(config, network, runtime) if name == "gen" else None,
        )
        for name, network in made.networks.items()
    }


def optimizer(network: nn.Module, options: schema.Optimizer) -> torch.optim.Optimizer:
    """The optimizer of a network's parameters."""
    parameters = list(network.parameters())
    if options.type == "sgd":
        return torch.optim.SGD(parameters, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
    if options.type == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=options.lr, eps=options.eps, weight_decay=options.weight_decay)
    if options.type == "fromage":
        return Fromage(parameters, lr=options.lr)
    if options.type == "madam":
        assert options.scale is not None
        return Madam(parameters, lr=options.lr, scale=options.scale, g_bound=options.g_bound)
    betas = (options.adam_beta1, options.adam_beta2)
    return torch.optim.Adam(parameters, lr=options.lr, betas=betas, eps=options.eps, fused=True)


def _schedule(policy: schema.LrPolicy) -> Schedule:
    if policy.type == "step":
        return schedule.step(policy.step_size, policy.gamma)
    if policy.type == "constant":
        return schedule.constant()
    assert policy.decay_start is not None and policy.decay_end is not None and policy.decay_target is not None
    return schedule.linear(policy.decay_start, policy.decay_end, policy.decay_target)


def _scaler(amp: schema.Amp, runtime: Runtime) -> torch.amp.GradScaler | None:
    if runtime.precision != "fp16":
        return None
    return torch.amp.GradScaler(
        runtime.device.type,
        init_scale=amp.init_scale,
        growth_factor=amp.growth_factor,
        backoff_factor=amp.backoff_factor,
        growth_interval=amp.growth_interval,
    )


def average(config: Config, network: nn.Module, runtime: Runtime) -> ModelAverage | None:
    """The running average of the generator, if the config wants one."""
    options = config.trainer.model_average_config
    if not options.enabled:
        return None
    beta = options.beta
    if options.g_smooth_img is not None:
        assert config.run.data.train is not None
        pictures_per_update = config.run.data.train.batch_size * config.trainer.accumulate * runtime.world
        beta = 0.5 ** (pictures_per_update / options.g_smooth_img)
    return ModelAverage(network, beta=beta, start_iteration=options.start_iteration, remove_sn=options.remove_sn)


def calibrated(training: Loader, count: int, runtime: Runtime) -> Callable[[Recipe], AbstractContextManager[None]]:
    """A context in which the averaged generator's batch norms have statistics measured on training batches.

    On `count` of them, or as many whole ones as there are: the same number on all ranks, since a synchronised norm
    waits for the others in each. Of a set that is smaller than a batch, all ranks take the same samples.
    """
    whole = min(count, training.steps_per_epoch)

    @contextmanager
    def context(averaged: Recipe) -> Iterator[None]:
        network = averaged.networks["gen"]
        kept = _batch_norm_buffers(network)
        rng = runtime.generator(0)
        few = islice(training.once(), whole) if whole else [training.some(training.batch_size)]
        reestimate_batch_norm(network, few, lambda batch: averaged.generate(averaged.prepare(batch), rng))
        try:
            yield
        finally:
            network.load_state_dict(kept, strict=False)

    def where_needed(averaged: Recipe) -> AbstractContextManager[None]:
        return context(averaged) if count and _batch_norm_buffers(averaged.networks["gen"]) else nullcontext()

    return where_needed


def measured_batch_norm(view: View, trainer: Trainer) -> dict[str, Tensor]:
    """The measured batch norm statistics of the averaged generator, for those who have a checkpoint, but no data."""
    with view.averaged(trainer) as averaged:
        return _batch_norm_buffers(averaged.networks["gen"])


def _batch_norm_buffers(network: nn.Module) -> dict[str, Tensor]:
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    return {name: buffer.clone() for name, buffer in network.named_buffers() if name.endswith(kinds)}
