"""What must hold between a method, its players and optimizers, and the data."""

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

FORMATS_OF_FLOATS = frozenset({"tif", "tiff", "hdr"})
"""Extensions of files whose values may be in [-1, 1] as they are."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_NAMES_IN_ERRORS = {
    "lr": "learning rate",
    "eps": "epsilon[12]?",
    "betas": "beta",
    "etas": "eta",
    "weight_decay": "weight.decay",
}
"""What torch calls arguments of its optimizers, where that differs from their names."""


def check_players(
    players: Sequence[str], optimizers: Mapping[str, schema.Optimizer], trainer: schema.Trainer
) -> Iterator[Mistake]:
    """Every broken rule about the optimizers, by their sections, and about the keys of `trainer` that name players."""
    for section, optimizer in optimizers.items():
        if optimizer.skip_grad and optimizer.clip_grad_norm is None:
            what = "needs clip_grad_norm, the norm above which an update is skipped"
            yield Mistake((section, "skip_grad"), what, code="needs-key")
    named: dict[KeyPath, Sequence[str]] = {
        ("model_average_config", "players"): trainer.model_average_config.players or [],
        ("checkpoint_activations",): trainer.checkpoint_activations,
    }
    for key_path, names in named.items():
        for position, name in enumerate(names):
            if name not in players:
                where = ("trainer", *key_path, position)
                yield Mistake(where, f"no player {name!r}", did_you_mean(name, players), "unknown-player")


def check_optimizer(
    cls: Any, type_: str, section: str, options: Mapping[str, Any], given: Collection[str]
) -> Iterator[Mistake]:
    """Why no training here can use a class of optimizers, or one with these arguments, if so.

    options: all arguments. given: those that the config sets.
    """
    parameters = list(inspect.signature(cls.step).parameters.values())[1:]
    if any(one.default is inspect.Parameter.empty and one.kind in _POSITIONAL for one in parameters):
        what = f"{type_} cannot be used: its step needs a closure that computes the loss again"
        yield Mistake((section, "type"), what, code="unusable-optimizer")
    if issubclass(cls, torch.optim.SparseAdam):
        what = f"{type_} cannot be used: it needs sparse gradients, and those of images are dense"
        yield Mistake((section, "type"), what, "adam takes them", "unusable-optimizer")
    elif cls in vars(torch.optim).values():
        yield from _check_options_of_torch(cls, section, options, given)


def _check_options_of_torch(
    cls: Any, section: str, options: Mapping[str, Any], given: Collection[str]
) -> Iterator[Mistake]:
    """What an optimizer of torch refuses, with the key if its error names just one of those given; and what it takes,
    but cannot train with: no share of the past of 1 or more, and no division by a root mean square that may be 0."""
    try:
        cls([torch.nn.Parameter(torch.zeros(2, 2))], **options)
    except (ValueError, RuntimeError) as error:
        text = str(error).partition("\n")[0]
        named = [key for key in given if re.search(rf"\b{_NAMES_IN_ERRORS.get(key, key)}\b", text, re.IGNORECASE)]
        yield Mistake((section, *named) if len(named) == 1 else (section,), text, code="wrong-optimizer")
        return
    below_one = ("momentum", "rho", *(["alpha"] if issubclass(cls, torch.optim.RMSprop) else []))
    for key in below_one:
        if options.get(key, 0) >= 1:
            yield Mistake((section, key), f"must be less than 1, got {options[key]}", code="out-of-range")
    if options.get("eps") == 0:
        yield Mistake((section, "eps"), "must be greater than 0, got 0", code="out-of-range")


def check_method(
    data: schema.Data, method: str, reads: Sequence[str], clips: bool, networks: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mistake]:
    """What the data lack that a method reads, or have with other channels than its networks are for.

    reads, clips: as Recipe.required_inputs, Recipe.is_video. networks: the options of each, by its section.
    """
    own_type = None if data.val is None else data.val.type
    for here, type_ in ((("data", "type"), data.type), (("data", "val", "type"), own_type)):
        if type_ is not None and find(schema.DATASET, type_).is_video != clips:
            kinds = ("stills", "clips") if clips else ("clips", "stills")
            yield Mistake(here, f"gives {kinds[0]}, but {method} reads {kinds[1]}", code="stills-or-clips")
    if "label" in reads and not data.input_labels:
        advice = f"name the types that make up the label, which {method} reads"
        yield Mistake(("data", "input_labels"), "is empty", advice, "empty")
    key = "num_image_channels"
    channels = {f"{section}.{key}": options[key] for section, options in networks.items() if key in options}
    sets: list[tuple[KeyPath, schema.Data]] = [(("data",), data)]
    if data.val is not None and data.val.input_types is not None:
        own = replace(data, input_types=data.val.input_types, input_image=data.val.input_image or [])
        sets.append((("data", "val"), own))
    for key_path, of_place in sets:
        called = {name: made.name for name, made in label_ops.apply_ops(of_place).items()}
        needed = [name for name in reads if name != "label"]
        yield from _images(of_place.input_types, called, needed, channels, method, key_path)
        image = [called.get(name, name) for name in of_place.input_image]
        if "images" in reads and image != ["images"]:
            what = f"must be [images], which {method} reads"
            yield Mistake((*key_path, "input_image"), what, f"got [{', '.join(image)}]", "wrong-input-image")


def check_normalized(data: schema.Data, method: str, compared: Sequence[str], key_path: KeyPath) -> Iterator[Mistake]:
    """Images of 8 bits that are compared with those of the generator in another range than these have.

    compared: as Recipe.normalized_inputs.
    """
    called = {name: made.name for name, made in label_ops.apply_ops(data).items()}
    for index, entry in enumerate(data.input_types):
        for name, options in entry.items():
            is_light = label_ops.choose_codec(data, name) in ("image", "mask")
            may_be_float = (options.ext or "").lower() in FORMATS_OF_FLOATS
            if called[name] in compared and is_light and not options.normalize and not may_be_float:
                what = f"must be true: {method} makes images in [-1, 1], and compares them with {name}, now in [0, 1]"
                yield Mistake((*key_path, "input_types", index, name, "normalize"), what, code="not-normalized")


def _images(
    entries: Sequence[Mapping[str, schema.InputType]],
    called: Mapping[str, str],
    needed: Sequence[str],
    channels: Mapping[str, int],
    method: str,
    key_path: KeyPath,
) -> Iterator[Mistake]:
    """called: the name in a batch of each input type."""
    of_config = {name: kind for kind, name in called.items()}
    found = {name: (index, options) for index, entry in enumerate(entries) for name, options in entry.items()}
    for name in needed:
        if name not in of_config:
            what = f"lacks {name}, which {method} reads"
            yield Mistake((*key_path, "input_types"), what, code="missing-input-type")
            continue
        kind = of_config[name]
        index, options = found[kind]
        for key, number in channels.items():
            if options.num_channels not in (None, number):
                here = (*key_path, "input_types", index, kind, "num_channels")
                what = f"is {options.num_channels}, but {key} is {number}"
                yield Mistake(here, what, "make them the same", "different-channels")
