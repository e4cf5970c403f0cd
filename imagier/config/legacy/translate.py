"""The reference's spellings, rewritten to ours. Nothing is dropped in silence. Those of data: data.py."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

from imagier.config import schema
from imagier.config.legacy import data as legacy_data
from imagier.config.legacy.data import CREDENTIALS, OFF, ONLY_REMOTE, Retired
from imagier.config.load import Document, KeyPath, join_keys
from imagier.config.lookup import class_at, kind_at, type_at
from imagier.config.own_keys import SECTIONS

_TYPE_PREFIXES = (
    "imaginaire.generators.",
    "imaginaire.discriminators.",
    "imaginaire.trainers.",
    "imaginaire.datasets.",
)

_RENAMED_TYPES: dict[KeyPath, dict[str, str]] = {
    ("dis", "type"): {"multires_patch": "pix2pixHD", "coco_funit": "funit"},
    ("trainer", "type"): {"coco_funit": "funit"},
}

_MOVED: dict[KeyPath, KeyPath] = {
    ("trainer", "perceptual_mode"): ("trainer", "perceptual_loss", "mode"),
    ("trainer", "perceptual_layers"): ("trainer", "perceptual_loss", "layers"),
    ("dis", "image_channels"): ("dis", "num_image_channels"),
    ("single_frame_epoch",): ("trainer", "single_frame_epoch"),
    ("num_epochs_temporal_step",): ("trainer", "num_epochs_temporal_step"),
}
"""Keys whose meaning has another place here, for methods that know that place and not the key."""

_RETIRED: dict[KeyPath, Retired] = {
    ("trainer", "hparam_to_tensorboard"): Retired("had no effect"),
    ("trainer", "distributed_data_parallel"): Retired(
        "had no effect; gradients are averaged with torch.distributed", "pytorch"
    ),
    ("trainer", "distributed_data_parallel_params"): Retired(
        "not needed; parameters without a gradient are handled", {"find_unused_parameters": False}
    ),
    ("trainer", "delay_allreduce"): Retired("had no effect", True),
    ("trainer", "amp_gp"): Retired("had no effect"),
    ("trainer", "val_sample_size"): Retired("had no effect on this method", 50_000),
    ("trainer", "eval_network"): Retired("had no effect on this method", ["clean_inception"]),
    ("trainer", "use_kid"): Retired("had no effect on this method", True),
    ("trainer", "use_fid"): Retired("had no effect on this method"),
    ("trainer", "kid_num_subsets"): Retired("had no effect on this method", 10),
    ("trainer", "kid_sample_size"): Retired("had no effect on this method", 256),
    ("trainer", "kid_subset_size"): Retired("had no effect on this method", 256),
    ("trainer", "perceptual_mode"): Retired("had no effect on this method, which reads perceptual_loss.mode"),
    ("trainer", "perceptual_layers"): Retired("had no effect on this method, which reads perceptual_loss.layers"),
    ("trainer", "gan_relativistic"): Retired("had no effect on this method"),
    ("trainer", "gan_decay_k"): Retired("had no effect on this method", 1),
    ("trainer", "gan_min_k"): Retired("had no effect on this method", 1),
    ("trainer", "gan_separate_topk"): Retired("had no effect on this method"),
    ("trainer", "loss_weight", "gp"): Retired("was read, but no such loss was computed", 0),
    ("trainer", "loss_weight", "consistency_reg"): Retired("had no effect on this method", 0),
    ("trainer", "loss_weight", "kl"): Retired("had no effect on this method", 0),
    ("gen", "all_res"): Retired("had no effect", True),
    ("dis", "patch_wise"): Retired("had no effect on this method, which reads patch_dis", True),
    ("dis", "patch_dis"): Retired("had no effect on this method, which reads patch_wise", True),
    ("trainer", "gan_recon"): Retired("had no effect on this method"),
    ("trainer", "aug_policy"): Retired("this method does not use DiffAugment"),
    ("gen", "version"): Retired("had no effect"),
    ("gen", "activation_norm_params", "cond_dims"): Retired("is counted from the data section"),
    ("data", "val", "drop_last"): Retired("every held-out sample counts"),
    CREDENTIALS: Retired(ONLY_REMOTE),
    ("common",): Retired("this method takes nothing from it"),
    ("local_rank",): Retired("is set at run time", 0),
    ("source_filename",): Retired("is set at run time"),
    ("date_uid",): Retired("is set at run time"),
    ("logdir",): Retired("is set with --logdir"),
}

_FUNIT_METRICS = ("use_kid", "use_fid", "val_sample_size", "kid_num_subsets", "kid_sample_size", "kid_subset_size")
"""Keys of `trainer` that did something in one method alone."""

_DISCRIMINATOR_SWITCHES = {"unit": "patch_dis", "munit": "patch_wise"}
"""Keys of `dis` that choose between two discriminators, each of which reads keys that the other does not."""

_PATCH_ONLY = ("num_discriminators", "kernel_size")
_RESIDUAL_ONLY = ("first_kernel_size", "padding_mode", "aggregation", "order", "anti_aliased")

_BETAS = ("adam_beta1", "adam_beta2")
_OPTIMIZER_KEYS: dict[KeyPath, Any] = {
    ("adam_beta1",): 0.0,
    ("adam_beta2",): 0.999,
    ("eps",): 1e-8,
    ("momentum",): 0.0,
    ("weight_decay",): 0.0,
    ("scale",): None,
    ("g_bound",): None,
    ("lr_policy", "step_size"): schema.BIG,
    ("lr_policy", "gamma"): 1.0,
    ("lr_policy", "decay_start"): None,
    ("lr_policy", "decay_end"): None,
    ("lr_policy", "decay_target"): None,
}
"""Keys that stood in the section of every optimizer, whatever its type, and what they held where nobody set them."""

_OLD_TYPES = ("adam", "sgd", "rmsprop", "fromage", "madam", "step", "linear", "constant")
"""The types of those sections."""

_COUNTED = "is counted from the data section"

# Keys that mean something which cannot be done here: an error that says so.
_REFUSED: dict[KeyPath, str] = {
    ("gen", "num_labels"): _COUNTED,
    ("dis", "num_labels"): _COUNTED,
    ("gen", "activation_norm_params", "partial"): "this version has no partial convolutions",
}


def translate_legacy(document: Document) -> list[str]:
    """Rewrites the reference's spellings in place; returns one line for every key that was dropped.

    What means something that cannot be done here is noted in the document, for `check` to tell with all that is wrong.
    """
    _rename_values(document)
    _rewrite_betas(document)
    _move_keys(document)
    notes = legacy_data.translate(document)
    _refuse(document)
    legacy_data.rewrite_ops(document)
    return [*notes, *_retire(document)]


def _rename_values(document: Document) -> None:
    """Module paths to names, "None" to null, and "" to "none" where a norm is meant."""
    for key_path, value in list(document.walk()):
        if not isinstance(value, str):
            continue
        if key_path[-1] == "type":
            for prefix in _TYPE_PREFIXES:
                value = value.removeprefix(prefix)
            document.set(key_path, _RENAMED_TYPES.get(key_path, {}).get(value, value))
        if value in ("", "None") and str(key_path[-1]).endswith(("norm_type", "nonlinearity")):
            document.set(key_path, "none")
        elif value == "None":
            document.set(key_path, None)


def _rewrite_betas(document: Document) -> None:
    """adam_beta1 and adam_beta2 to `betas`, for optimizers that take it."""
    for section in _optimizers(document):
        given = [key for key in _BETAS if document.has((section, key))]
        cls = class_at(document, (section, "betas"))
        parameter = None if cls is None else inspect.signature(cls).parameters.get("betas")
        if not given or parameter is None or document.has((section, "betas")):
            continue
        betas = [_OPTIMIZER_KEYS[(key,)] for key in _BETAS]
        betas = betas if parameter.default is inspect.Parameter.empty else list(parameter.default)
        document.set((section, "betas"), betas, document.origin((section, given[0])))
        for key in given:
            origin = document.origin((section, key))
            document.set((section, "betas", _BETAS.index(key)), document.drop((section, key)), origin)


def _optimizers(document: Document) -> list[str]:
    """The sections of optimizers."""
    return [key for key, value in document.tree.items() if str(key).endswith("_opt") and isinstance(value, dict)]


def _move_keys(document: Document) -> None:
    """Keys to their other places, where the class of the section knows these alone."""
    moved = {old: new for old, new in _MOVED.items() if document.has(old) and not _accepts_key(document, old)}
    for old, new in moved.items():
        together = [key_path for key_path, target in _MOVED.items() if target[:-1] == new[:-1]]
        if _accepts_key(document, new) and all(key_path in moved for key_path in together) and not document.has(new):
            origin = document.origin(old)
            document.set(new, document.drop(old), origin)


def _refuse(document: Document) -> None:
    refused = dict(_REFUSED)
    for section in SECTIONS:
        refused |= legacy_data.list_refused_keys(section)
    for key_path, why in refused.items():
        if not document.has(key_path) or _accepts_key(document, key_path):
            continue
        if document.get(key_path) in OFF:
            document.drop(key_path)
        else:
            document.refuse(key_path, why, "remove it here" if why == _COUNTED else "")


def _retire(document: Document) -> list[str]:
    retired = dict(_RETIRED)
    if document.get(("trainer", "type")) == "funit":
        for key in _FUNIT_METRICS:
            retired["trainer", key] = retired["trainer", key]._replace(why="this version has no FID and no KID")
    for section in _optimizers(document):
        retired[section, "fused_opt"] = Retired("the fused optimizer is always used where the device has one")
        retired |= _keys_of_other_optimizers(document, section)
    for section in SECTIONS:
        retired |= legacy_data.list_retired_keys(document, section)
    notes = _drop_keys_of_the_other_discriminator(document)
    for key_path, (why, default) in retired.items():
        if not document.has(key_path) or _accepts_key(document, key_path):
            continue
        if document.drop(key_path) not in (None, "", {}, [], default):
            notes.append(f"{document.origin(key_path)}: {join_keys(key_path)}: {why}; dropped")
    return notes


def _keys_of_other_optimizers(document: Document, section: str) -> dict[KeyPath, Retired]:
    """Keys that the type of an optimizer, or of its schedule, does not read, but others do.

    Of types that the reference did not have, only those that say nothing.
    """
    retired: dict[KeyPath, Retired] = {}
    for (*inner, key), default in _OPTIMIZER_KEYS.items():
        key_path = (section, *inner, key)
        type_ = type_at(document, key_path)
        if type_ in _OLD_TYPES or document.get(key_path) in (None, default):
            retired[key_path] = Retired(f"has no effect with type: {type_}", default)
    return retired


def _drop_keys_of_the_other_discriminator(document: Document) -> list[str]:
    notes: list[str] = []
    switch = _DISCRIMINATOR_SWITCHES.get(str(document.get(("dis", "type"))))
    if switch is None:
        return notes
    is_patch = document.get(("dis", switch), True)
    for key_path in [("dis", key) for key in (_RESIDUAL_ONLY if is_patch else _PATCH_ONLY)]:
        if document.has(key_path) and document.drop(key_path) is not None:
            why = f"has no effect with {switch}: {str(bool(is_patch)).lower()}"
            notes.append(f"{document.origin(key_path)}: {join_keys(key_path)}: {why}; dropped")
    return notes


def _accepts_key(document: Document, key_path: KeyPath) -> bool:
    """Whether a key means something to the class that its section names."""
    found, cls = kind_at(key_path), class_at(document, key_path)
    if found is None or cls is None:
        return False
    kind, depth = found
    path = [str(part) for part in key_path[depth:]]
    return _accepts(cls, path) or (kind.beside is not None and _accepts(kind.beside, path))


def _accepts(cls: type, path: Sequence[str]) -> bool:
    """Whether a constructor has a keyword, or one of a type that has a field, and so on along a path of keys."""
    name, *rest = path
    if name not in inspect.signature(cls).parameters:
        return False
    hint = get_type_hints(cls.__init__).get(name, Any)  # type: ignore[misc]
    options = (hint, *get_args(hint))
    if not rest or any(option is Any or (get_origin(option) or option) is dict for option in options):
        return True
    return any(
        _accepts(option, rest) for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)
    )
