"""From a checked config to networks, recipe and players."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from imagier.config import schema
from imagier.config.check import Component, Config
from imagier.data.loading.loader import Loader
from imagier.errors import UserError
from imagier.nn.average import ModelAverage, reestimate_batch_norm
from imagier.nn.init import initialize
from imagier.recipe import Recipe
from imagier.run import build_data
from imagier.train import schedule
from imagier.train.optim import Fromage, Madam
from imagier.train.player import Player, Schedule
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer
from imagier.train.view import View


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
        raise error.at("trainer") from error
    for network in (*made.networks.values(), *loss_networks):
        _place(network, config, runtime)
    return made


def untrained(config: Config, runtime: Runtime, seed: int = 0, **known: Any) -> Recipe:
    """The recipe with its networks as they were constructed, on the device; it can make images, but not learn."""
    made = _constructed(config, seed, known)
    for network in made.networks.values():
        _place(network, config, runtime)
    return made


def _constructed(config: Config, seed: int, known: Mapping[str, Any]) -> Recipe:
    split = config.run.data.train
    assert split is not None
    known = {**build_data.facts(config.run.data, split), **known}
    torch.manual_seed(seed)
    gen = _built(config.gen, "gen", known)
    dis = _built(config.dis, "dis", known)
    made: Recipe = _built(config.recipe, "trainer", {**known, "gen": gen, "dis": dis})
    if config.trainer.accumulate > 1:
        made.should_share_forward = False  # else the generator's graphs of all parts would be in memory together
    return made


def _place(network: nn.Module, config: Config, runtime: Runtime) -> None:
    memory_format = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    network.to(runtime.device).to(memory_format=memory_format)  # type: ignore[call-overload]


def _built(component: Component, section: str, known: Mapping[str, Any]) -> Any:
    size = inspect.signature(component.cls).parameters.get("crop_h_w")
    if size is not None and size.default is inspect.Parameter.empty and "crop_h_w" not in known:
        raise UserError(
            "needs a crop (random_crop_h_w) or resize_h_w, the size to train at", where="data.train.augmentations"
        )
    try:
        return component.build(**known)
    except UserError as error:
        raise error.at(section) from error


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
        images_per_update = config.run.data.train.batch_size * config.trainer.accumulate * runtime.world
        beta = 0.5 ** (images_per_update / options.g_smooth_img)
    return ModelAverage(network, beta=beta, start_iteration=options.start_iteration, remove_sn=options.remove_sn)


def calibrated(training: Loader, count: int, runtime: Runtime) -> Callable[[Recipe], AbstractContextManager[None]]:
    """A context in which the averaged generator's batch norms have statistics measured on training batches.

    On `count` of them, or as many whole ones as there are: the same number on all ranks, since a synchronized norm
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
