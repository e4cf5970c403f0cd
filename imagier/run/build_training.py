"""Builds networks, recipe and players from a checked config."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from imagier.config import schema
from imagier.config.check import Component, Config
from imagier.data.loading.loader import Loader
from imagier.errors import UserError
from imagier.nn.average import ModelAverage, reestimate_batch_norm
from imagier.nn.conv import choose_algorithms
from imagier.nn.init import initialize
from imagier.nn.recompute import recompute_blocks
from imagier.recipe import Recipe
from imagier.run import build_data
from imagier.run.pretrained import open_pretrained
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.schedule import warm_up
from imagier.train.trainer import Trainer
from imagier.train.view import View


def build_recipe(config: Config, runtime: Runtime, seed: int, **known: Any) -> Recipe:
    """The recipe with initialized networks, on the device. The same weights on all ranks.

    known: facts that only the files hold (`style_classes`, the number of classes). UserError if a constructor objects.
    """
    recipe = _construct(config, seed, known)
    init = config.trainer.init
    for network in recipe.networks.values():  # before the move: the same draws on every device and in every layout
        initialize(network, init.type, init.gain, init.bias.gain if init.bias else None)
    for network in (*recipe.networks.values(), *load_losses(recipe)):
        _place(network, config, runtime)
    for name in config.trainer.checkpoint_activations:
        if not recompute_blocks(recipe.networks[name]):
            what = f"the network of {name} has no blocks: modules with `is_block = True`"
            raise UserError(what, where="trainer.checkpoint_activations", advice="mark some", code="no-blocks")
    return recipe


def load_losses(recipe: Recipe) -> Sequence[nn.Module]:
    """The networks that the losses of a recipe use, with their weights. UserError if these are missing."""
    try:
        recipe.loss_networks = recipe.load_losses()
    except UserError as error:
        raise error.at("trainer") from error
    return recipe.loss_networks


def build_weightless_recipe(config: Config, **known: Any) -> Recipe:
    """The recipe with networks on the meta device: it can be counted, in no time and memory, and nothing else."""
    with torch.device("meta"):
        return _construct(config, 0, known)


def build_untrained_recipe(config: Config, runtime: Runtime, seed: int = 0, **known: Any) -> Recipe:
    """The recipe with networks as their constructors make them, on the device: it can generate, but not train."""
    recipe = _construct(config, seed, known)
    for network in recipe.networks.values():
        _place(network, config, runtime)
    return recipe


def _construct(config: Config, seed: int, known: Mapping[str, Any]) -> Recipe:
    split = config.run.data.train
    assert split is not None
    facts = build_data.collect_facts(config.run.data, split)
    known = {**facts, "open_pretrained": partial(open_pretrained, facts=facts), **known}
    torch.manual_seed(seed)
    networks = {name: _build(network, name, known) for name, network in config.players.items()}
    for player, network in networks.items():
        _refuse_lazy(network, player)
    recipe: Recipe = _build(config.recipe, "trainer", {**known, **networks})
    if unset := [name for name in recipe.players if not isinstance(getattr(recipe, name, None), nn.Module)]:
        cls = config.recipe.cls
        raise UserError(
            f"its constructor does not set self.{unset[0]}, the network of that player",
            where=f"{cls.__module__}.{cls.__qualname__}",
            code="unset-player",
        )
    return recipe


def _refuse_lazy(network: nn.Module, player: str) -> None:
    """UserError if a layer gets its weights only with its first batch: optimizers and averages need them before."""
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        if is_lazy(tensor):
            raise UserError(
                f"{name} has no shape before the first batch, as it is of a lazy layer",
                where=player,
                advice="use the plain layer; label_channels and image_channels are the numbers of channels of the data",
                code="lazy-layer",
            )


def _place(network: nn.Module, config: Config, runtime: Runtime) -> None:
    memory_format = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    network.to(runtime.device).to(memory_format=memory_format)  # type: ignore[call-overload]
    is_as_reference = config.recipe.options.get("reference_order", False)
    choose_algorithms(
        network,
        has_winograd=config.trainer.winograd and not is_as_reference,
        has_subpixel=config.trainer.subpixel and not is_as_reference,
    )


def _build(component: Component, section: str, known: Mapping[str, Any]) -> Any:
    size = inspect.signature(component.cls).parameters.get("crop_h_w")
    if size is not None and size.default is inspect.Parameter.empty and "crop_h_w" not in known:
        raise UserError(
            "needs a crop (random_crop_h_w) or resize_h_w, the size to train at",
            where="data.train.augmentations",
            code="needs-crop",
        )
    try:
        return component.build(**known)
    except UserError as error:
        raise error.at(section) from error


def build_players(config: Config, recipe: Recipe, runtime: Runtime) -> dict[str, Player]:
    """The player of each network of a recipe: its optimizer, schedule, scaler and average."""
    return {name: build_player(config, name, network, runtime) for name, network in recipe.networks.items()}


def build_player(
    config: Config, name: str, network: nn.Module, runtime: Runtime, *, has_average: bool = True
) -> Player:
    """The player of this name with a network. has_average: if the config wants one for it."""
    component = config.optimizers[name]
    shared: schema.Optimizer = component.shared
    policy: schema.LrPolicy = shared.lr_policy.shared
    return Player(
        network,
        build_optimizer(component, network, f"{name}_opt"),
        runtime,
        schedule=warm_up(shared.lr_policy.build(), policy.warmup),
        by_iteration=policy.iteration_mode,
        clip_grad_norm=shared.clip_grad_norm,
        skip_large_grads=shared.skip_grad,
        scaler=_build_scaler(config.trainer.amp_config, runtime),
        average=build_average(config, name, network, runtime) if has_average else None,
    )


def build_optimizer(component: Component, network: nn.Module, section: str) -> torch.optim.Optimizer:
    """The optimizer of a network's parameters. UserError if its constructor refuses its arguments or the weights."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        what = "its network has no weights that learn"
        raise UserError(what, where=section, advice="unfreeze some (requires_grad)", code="nothing-to-train")
    try:
        return component.build(params=list(network.parameters()))
    except ValueError as error:  # what the optimizers of torch raise
        raise UserError(str(error), where=section, code="wrong-optimizer") from error


def _build_scaler(amp: schema.Amp, runtime: Runtime) -> torch.amp.GradScaler | None:
    if runtime.precision != "fp16":
        return None
    return torch.amp.GradScaler(
        runtime.device.type,
        init_scale=amp.init_scale,
        growth_factor=amp.growth_factor,
        backoff_factor=amp.backoff_factor,
        growth_interval=amp.growth_interval,
    )


def build_average(config: Config, player: str, network: nn.Module, runtime: Runtime) -> ModelAverage | None:
    """The running average of a player's network, if the config wants one."""
    options = config.trainer.model_average_config
    if not options.enabled or player not in _list_averaged(config):
        return None
    beta = options.beta
    if options.g_smooth_img is not None:
        assert config.run.data.train is not None
        images_per_update = config.run.data.train.batch_size * config.trainer.accumulate * runtime.world
        beta = 0.5 ** (images_per_update / options.g_smooth_img)
    return ModelAverage(network, beta=beta, start_iteration=options.start_iteration, remove_sn=options.remove_sn)


def count_calibration_batches(config: Config) -> int:
    """On how many batches the batch norms of the averaged generator are measured; 0 where there is no such average."""
    options = config.trainer.model_average_config
    is_averaged = options.enabled and config.generator in _list_averaged(config)
    return options.num_batch_norm_estimation_iterations if is_averaged else 0


def _list_averaged(config: Config) -> list[str]:
    """The players of whose networks averages are kept, if any are."""
    players = config.trainer.model_average_config.players
    return [config.generator] if players is None else players


def build_calibration(
    training: Loader, count: int, runtime: Runtime
) -> Callable[[Recipe], AbstractContextManager[None]]:
    """A context in which the batch norms of the averaged generator have statistics measured on training batches.

    They are a random part of the whole set, the same every time: neither the place in the run nor the order of files
    shows in them. count: how many batches, or fewer if the set has not so many whole ones. It is the same on all ranks,
    because a synchronized norm waits for the other ranks. Of a set that is smaller than one batch, all ranks take the
    same samples.
    """
    whole = min(count, training.steps_per_epoch)
    samples = whole * training.samples_per_step

    @contextmanager
    def context(averaged: Recipe) -> Iterator[None]:
        network = averaged.networks[averaged.generator_name]
        before = _copy_batch_norm(network)
        rng = runtime.generator(0)
        few = training.draw(samples) if whole else [training.some(training.batch_size)]
        reestimate_batch_norm(network, few, lambda batch: averaged.generate(averaged.prepare(batch), rng))
        try:
            yield
        finally:
            network.load_state_dict(before, strict=False)

    def calibrate(averaged: Recipe) -> AbstractContextManager[None]:
        has_batch_norm = bool(_copy_batch_norm(averaged.networks[averaged.generator_name]))
        return context(averaged) if count and has_batch_norm else nullcontext()

    return calibrate


def measure_batch_norm(view: View, trainer: Trainer) -> dict[str, Tensor]:
    """Batch norm statistics of the averaged generator, measured for a checkpoint: inference may have no data."""
    with view.use_average_weights(trainer) as averaged:
        return _copy_batch_norm(averaged.networks[averaged.generator_name])


def _copy_batch_norm(network: nn.Module) -> dict[str, Tensor]:
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: buffer.clone() for name, buffer in network.named_buffers() if name.endswith(names)}
