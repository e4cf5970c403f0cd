"""The reference's spellings, rewritten to ours. Nothing is dropped in silence. Those of data: data.py."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

from imagier.config import schema
from imagier.config.find import list_types
from imagier.config.legacy import data as legacy_data
from imagier.config.legacy import people as legacy_people
from imagier.config.legacy import video as legacy_video
from imagier.config.legacy.data import CREDENTIALS, OFF, ONLY_REMOTE, Retired
from imagier.config.load import ConfigError, Document, KeyPath, join_keys
from imagier.config.lookup import class_at, kind_at, type_at
from imagier.config.own_keys import SECTIONS
from imagier.errors import UserError

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

_ABSENT_METHODS = ("gancraft", "dummy")
_ABSENT_DATASETS = ("dummy",)
"""What the reference had and this version has not: nothing else of such a config is worth a line."""

_MOVED: dict[KeyPath, KeyPath] = {
    ("trainer", "perceptual_mode"): ("trainer", "perceptual_loss", "mode"),
    ("trainer", "perceptual_layers"): ("trainer", "perceptual_loss", "layers"),
    ("dis", "image_channels"): ("dis", "num_image_channels"),
    ("single_frame_epoch",): ("trainer", "single_frame_epoch"),
    ("num_epochs_temporal_step",): ("trainer", "num_epochs_temporal_step"),
}
"""Keys whose meaning has another place here, for methods that know that place and not the key."""

_NOT_OF_THIS_METHOD = "had no effect on this method"

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
    ("trainer", "val_sample_size"): Retired(_NOT_OF_THIS_METHOD, 50_000),
    ("trainer", "eval_network"): Retired(_NOT_OF_THIS_METHOD, ["clean_inception"]),
    ("trainer", "use_kid"): Retired(_NOT_OF_THIS_METHOD, True),
    ("trainer", "use_fid"): Retired(_NOT_OF_THIS_METHOD),
    ("trainer", "kid_num_subsets"): Retired(_NOT_OF_THIS_METHOD, 10),
    ("trainer", "kid_sample_size"): Retired(_NOT_OF_THIS_METHOD, 256),
    ("trainer", "kid_subset_size"): Retired(_NOT_OF_THIS_METHOD, 256),
    ("trainer", "perceptual_mode"): Retired("had no effect on this method, which reads perceptual_loss.mode"),
    ("trainer", "perceptual_layers"): Retired("had no effect on this method, which reads perceptual_loss.layers"),
    ("trainer", "gan_relativistic"): Retired(_NOT_OF_THIS_METHOD),
    ("trainer", "gan_decay_k"): Retired(_NOT_OF_THIS_METHOD, 1),
    ("trainer", "gan_min_k"): Retired(_NOT_OF_THIS_METHOD, 1),
    ("trainer", "gan_separate_topk"): Retired(_NOT_OF_THIS_METHOD),
    ("trainer", "fid_type"): Retired("had no effect"),
    **{
        ("trainer", key): Retired(_NOT_OF_THIS_METHOD, default)
        for key, default in {
            "gaugan_loader": None,
            "num_frames_per_video": 10,
            "num_videos_to_test": 64,
            "reset_opt_d_on_resume": False,
            "reset_opt_g_on_resume": False,
            "reuse_gen_output": True,
        }.items()
    },
    ("single_frame_epoch",): Retired(_NOT_OF_THIS_METHOD, 0),
    ("num_epochs_temporal_step",): Retired(_NOT_OF_THIS_METHOD, None),
    ("trainer", "loss_weight", "gp"): Retired("was read, but no such loss was computed", 0),
    ("trainer", "loss_weight", "consistency_reg"): Retired(_NOT_OF_THIS_METHOD, 0),
    ("trainer", "loss_weight", "kl"): Retired(_NOT_OF_THIS_METHOD, 0),
    ("gen", "all_res"): Retired("had no effect", True),
    ("dis", "patch_wise"): Retired("had no effect on this method, which reads patch_dis", True),
    ("dis", "patch_dis"): Retired("had no effect on this method, which reads patch_wise", True),
    ("trainer", "gan_recon"): Retired(_NOT_OF_THIS_METHOD),
    ("trainer", "aug_policy"): Retired("this method does not use DiffAugment"),
    ("gen", "version"): Retired("had no effect"),
    ("gen", "activation_norm_params", "cond_dims"): Retired("is counted from the data section"),
    CREDENTIALS: Retired(ONLY_REMOTE),
    ("common",): Retired("this method takes nothing from it"),
    ("local_rank",): Retired("is set at run time", 0),
    ("source_filename",): Retired("is set at run time"),
    ("date_uid",): Retired("is set at run time"),
    ("logdir",): Retired("is set with --logdir"),
}

_DISTANCES = {"use_kid": True, "use_fid": False, "kid_num_subsets": 1, "kid_sample_size": 256, "kid_subset_size": 256}
"""Keys of `trainer` that did something in one method alone, and what they were for those who did not set them."""

_DISCRIMINATOR_SWITCHES = {"unit": "patch_dis", "munit": "patch_wise"}
"""Keys of `dis` that choose between two discriminators, each of which reads keys that the other does not."""

_PATCH_ONLY = ("num_discriminators", "kernel_size")
_RESIDUAL_ONLY = ("first_kernel_size", "padding_mode", "aggregation", "order", "anti_aliased")

_FLOW_NETWORK = "flow_network"
"""The section of the network that looks at motion, of video methods; a recipe may have a player of that name."""

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
    (
        "gen",
        "activation_norm_params",
        "partial",
    ): "partial convolutions are of guidance alone (gen.guidance.partial_conv)",
}


def translate_legacy(document: Document) -> list[str]:
    """Rewrites the reference's spellings in place; returns one line for every key that was dropped.

    What means something that cannot be done here is noted in the document, for `check` to tell with all that is wrong.
    ConfigError, with nothing else, if the whole method is missing here.
    """
    _rename_values(document)
    _refuse_absent_types(document)
    _rewrite_betas(document)
    _move_keys(document)
    _move_distances(document)
    legacy_people.translate(document, _accepts_key)
    notes = [*legacy_video.translate(document, _accepts_key), *legacy_data.translate(document)]
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
    legacy_video.rename_discriminator(document)


def _refuse_absent_types(document: Document) -> None:
    for section, absent, kind in (
        *((section, _ABSENT_METHODS, schema.RECIPE) for section in ("trainer", "gen", "dis")),
        *((section, _ABSENT_DATASETS, schema.DATASET) for section in SECTIONS),
    ):
        name = document.get((section, "type"))
        if name in absent:
            where = f"{document.origin((section, 'type'))}: {section}.type"
            advice = f"it has {', '.join(list_types(kind))}"
            raise ConfigError([UserError(f"this version has no {name}", where=where, advice=advice, code="no-method")])


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


def _move_distances(document: Document) -> None:
    """The distances between sets of images that FUNIT measured, class by class, to `metrics`."""
    given = [("trainer", key) for key in _DISTANCES if document.has(("trainer", key))]
    if document.get(("trainer", "type")) != "funit" or not given:
        return
    origin = document.origin(given[0])
    told = {**_DISTANCES, **{key: document.drop((section, key)) for section, key in given}}
    shared = {"features": "reference_inception", "per_class": True, "optional": True}
    distances: list[dict[str, Any]] = []
    if told["use_kid"]:
        sizes = {"num_subsets": "kid_num_subsets", "subset_size": "kid_subset_size", "sample_size": "kid_sample_size"}
        distances.append({"type": "kd", **shared, **{new: told[old] for new, old in sizes.items()}})
    if told["use_fid"]:
        distances.append({"type": "fd", **shared})
    before = document.get(("metrics",), list(schema.METRICS))
    if distances and isinstance(before, list):
        document.set(("metrics",), [*before, *distances], origin)


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
    for section in _optimizers(document):
        for key in ("param_groups", "ignore_parameters"):
            retired[section, key] = Retired(_NOT_OF_THIS_METHOD)
        retired[section, "fused_opt"] = Retired("the fused optimizer is always used where the device has one")
        retired |= _keys_of_other_optimizers(document, section)
    for section in SECTIONS:
        retired |= legacy_data.list_retired_keys(document, section)
    retired |= legacy_video.list_retired_keys(document, _accepts_key)
    recipe = class_at(document, ("trainer",))
    if recipe is not None and _FLOW_NETWORK not in recipe.players:
        instead = "the flow is that of the data or, without it, as OpenCV's DIS finds it"
        retired[_FLOW_NETWORK,] = Retired(instead if recipe.is_video else _NOT_OF_THIS_METHOD)
    if recipe is not None and recipe.is_video:
        retired |= legacy_video.RETIRED_ARGUMENTS
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
