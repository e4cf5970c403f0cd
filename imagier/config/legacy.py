"""The reference's spellings, rewritten to ours; the only file that knows them. Nothing is dropped in silence."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from imagier.config import schema
from imagier.config.load import Document, KeyPath, join_keys
from imagier.config.lookup import class_at, find_dataset, is_taken, type_at
from imagier.config.remote_rules import is_url

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

_OFF: tuple[Any, ...] = (None, False, "", {}, [])
"""What says that something is not wanted."""


class _Retired(NamedTuple):
    """A key that was read and not used, or whose work is done differently here: dropped with a line."""

    why: str
    default: Any = False
    """What it held where a config did not give it, and so says nothing: dropped without a line."""


_CREDENTIALS = ("aws_credentials_file",)
_ONLY_REMOTE = "only needed for data in an object store"

_RETIRED: dict[KeyPath, _Retired] = {
    ("trainer", "hparam_to_tensorboard"): _Retired("had no effect"),
    ("trainer", "distributed_data_parallel"): _Retired(
        "had no effect; gradients are averaged with torch.distributed", "pytorch"
    ),
    ("trainer", "distributed_data_parallel_params"): _Retired(
        "not needed; parameters without a gradient are handled", {"find_unused_parameters": False}
    ),
    ("trainer", "delay_allreduce"): _Retired("had no effect", True),
    ("trainer", "amp_gp"): _Retired("had no effect"),
    ("trainer", "val_sample_size"): _Retired("had no effect on this method", 50_000),
    ("trainer", "eval_network"): _Retired("had no effect on this method", ["clean_inception"]),
    ("trainer", "use_kid"): _Retired("had no effect on this method", True),
    ("trainer", "use_fid"): _Retired("had no effect on this method"),
    ("trainer", "kid_num_subsets"): _Retired("had no effect on this method", 10),
    ("trainer", "kid_sample_size"): _Retired("had no effect on this method", 256),
    ("trainer", "kid_subset_size"): _Retired("had no effect on this method", 256),
    ("trainer", "perceptual_mode"): _Retired("had no effect on this method, which reads perceptual_loss.mode"),
    ("trainer", "perceptual_layers"): _Retired("had no effect on this method, which reads perceptual_loss.layers"),
    ("trainer", "gan_relativistic"): _Retired("had no effect on this method"),
    ("trainer", "gan_decay_k"): _Retired("had no effect on this method", 1),
    ("trainer", "gan_min_k"): _Retired("had no effect on this method", 1),
    ("trainer", "gan_separate_topk"): _Retired("had no effect on this method"),
    ("trainer", "loss_weight", "gp"): _Retired("was read, but no such loss was computed", 0),
    ("trainer", "loss_weight", "consistency_reg"): _Retired("had no effect on this method", 0),
    ("trainer", "loss_weight", "kl"): _Retired("had no effect on this method", 0),
    ("gen", "all_res"): _Retired("had no effect", True),
    ("dis", "patch_wise"): _Retired("had no effect on this method, which reads patch_dis", True),
    ("dis", "patch_dis"): _Retired("had no effect on this method, which reads patch_wise", True),
    ("trainer", "gan_recon"): _Retired("had no effect on this method"),
    ("trainer", "aug_policy"): _Retired("this method does not use DiffAugment"),
    ("gen", "version"): _Retired("had no effect"),
    ("gen", "activation_norm_params", "cond_dims"): _Retired("is counted from the data section"),
    ("data", "val", "drop_last"): _Retired("every held-out sample counts"),
    _CREDENTIALS: _Retired(_ONLY_REMOTE),
    ("common",): _Retired("this method takes nothing from it"),
    ("local_rank",): _Retired("is set at run time", 0),
    ("source_filename",): _Retired("is set at run time"),
    ("date_uid",): _Retired("is set at run time"),
    ("logdir",): _Retired("is set with --logdir"),
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

# The same for keys of the sections data and test_data, and of their splits: what it is that cannot be read.
_UNREADABLE = {
    "input_few_shot_labels": "few-shot labels",
    "initial_few_shot_K": "few-shot data",
    "num_frames_G": "keys of video generators",
    "num_frames_D": "keys of video generators",
    "first_last_only": "few-shot video",
    "sample_far_frames_more": "few-shot video",
    "has_foreground": "the foreground of people",
    "output_h_w": "the crops of few-shot video",
    "for_face_dataset": "face key points",
    "for_pose_dataset": "poses",
}
_UNREADABLE_IN_SPLITS = {
    "individual_video_frame_augmentations": "few-shot video",
}

# Data set types whose images make no label, and the keys that tell how to make one.
_WITHOUT_LABEL = ("images", "unpaired_images", "unpaired_few_shot_images")
_WITHOUT_CLASSES = ("paired_images", "unpaired_images")
_OF_STILLS = ("paired_images", *_WITHOUT_LABEL)
_CLIP_KEYS: dict[KeyPath, Any] = {
    ("initial_sequence_length",): None,
    ("max_sequence_length",): 100,
    ("augmentations", "max_time_step"): 1,
}
_LABEL_KEYS = ("input_labels", "full_data_ops", "one_hot_num_classes", "move_dont_care", "rename_inputs")

_DATA = ("data", "test_data")
_SPLITS = ("train", "val", "test")
_LABEL_OPS = "imaginaire.model_utils.label::"
_KNOWN_OPS = {f"{_LABEL_OPS}{op}": op for op in ("make_one_hot", "concat_labels", "move_dont_care")}
_KNOWN_OPS["imaginaire.model_utils.rename_inputs::rename_inputs"] = "rename_inputs"


def translate_legacy(document: Document) -> list[str]:
    """Rewrites the reference's spellings in place; returns one line for every key that was dropped.

    What means something that cannot be done here is noted in the document, for `check` to tell with all that is wrong.
    """
    _rename_values(document)
    _rewrite_betas(document)
    _move_keys(document)
    _list_roots(document)
    _move_credentials(document)
    _refuse(document)
    _rewrite_ops(document)
    return _retire(document)


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
    moved = {old: new for old, new in _MOVED.items() if document.has(old) and not is_taken(document, old)}
    for old, new in moved.items():
        together = [key_path for key_path, target in _MOVED.items() if target[:-1] == new[:-1]]
        if is_taken(document, new) and all(key_path in moved for key_path in together) and not document.has(new):
            origin = document.origin(old)
            document.set(new, document.drop(old), origin)


def _list_roots(document: Document) -> None:
    """One root given as text becomes a list."""
    for section in _DATA:
        for split in _SPLITS:
            key_path = (section, split, "roots")
            roots = document.get(key_path)
            if isinstance(roots, str):
                document.set(key_path, [roots] if roots else [])


def _move_credentials(document: Document) -> None:
    """The credentials to each section that reads from an object store; elsewhere they have no effect."""
    path = document.get(_CREDENTIALS)
    for section in _DATA if path not in _OFF else ():
        key_path = (section, *_CREDENTIALS)
        if _is_remote(document, section) and not document.has(key_path):
            document.set(key_path, path, document.origin(_CREDENTIALS))
    if path not in _OFF and any(_is_remote(document, section) for section in _DATA):
        document.drop(_CREDENTIALS)


def _is_remote(document: Document, section: str) -> bool:
    """Whether a split of the section lies in an object store."""
    for split in _SPLITS:
        roots = document.get((section, split, "roots"))
        roots = roots if isinstance(roots, list) else []
        is_store = document.get((section, split, "dataset_type")) == "object_store"
        if is_store or any(is_url(str(root)) for root in roots):
            return True
    return False


def _refuse(document: Document) -> None:
    refused = dict(_REFUSED)
    for section in _DATA:
        refused |= {(section, key): f"this version cannot read {what}" for key, what in _UNREADABLE.items()}
        for split in _SPLITS:
            for key, what in _UNREADABLE_IN_SPLITS.items():
                refused[section, split, key] = f"this version cannot read {what}"
    for key_path, why in refused.items():
        if not document.has(key_path) or is_taken(document, key_path):
            continue
        if document.get(key_path) in _OFF:
            document.drop(key_path)
        else:
            document.refuse(key_path, why, "remove it here" if why == _COUNTED else "")


def _rewrite_ops(document: Document) -> None:
    """Op strings: the label ops are part of the pipeline; any other is refused."""
    for section in _DATA:
        key_path: KeyPath = (section, "full_data_ops")
        text = document.get(key_path)
        if isinstance(text, str):
            ops = [_KNOWN_OPS.get(op.strip(), op.strip()) for op in text.split(",") if op.strip()]
            document.set(key_path, ", ".join(ops) or None)
            for op in ops:
                if op not in _KNOWN_OPS.values() and document.has(key_path):
                    document.refuse(key_path, f"this version has no op {op!r}")
        _refuse_ops(document, (section, "full_data_post_aug_ops"))
        for key_path in _input_types(document, section):
            if document.get((*key_path, "pre_aug_ops")) == "decode_json" and key_path[-1] in _points(document, section):
                document.drop((*key_path, "pre_aug_ops"))  # it is how key points are read
            for key in ("pre_aug_ops", "post_aug_ops"):
                _refuse_ops(document, (*key_path, key))


def _refuse_ops(document: Document, key_path: KeyPath) -> None:
    text = document.get(key_path)
    if not document.has(key_path):
        return
    if text in _OFF:
        document.drop(key_path)
    else:
        document.refuse(key_path, f"this version has no op {text!r}")


def _points(document: Document, section: str) -> list[Any]:
    """The types that hold key points."""
    names = document.get((section, "keypoint_data_types"))
    return names if isinstance(names, list) else []


def _input_types(document: Document, section: str) -> list[KeyPath]:
    """The places of the options of each input type."""
    key_paths: list[KeyPath] = []
    for around in ((section,), *((section, split) for split in _SPLITS)):
        entries = document.get((*around, "input_types"))
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            key_paths += [(*around, "input_types", index, name) for name in entry] if isinstance(entry, dict) else []
    return key_paths


def _retire(document: Document) -> list[str]:
    retired = dict(_RETIRED)
    if document.get(("trainer", "type")) == "funit":
        for key in _FUNIT_METRICS:
            retired["trainer", key] = retired["trainer", key]._replace(why="this version has no FID and no KID")
    for section in _optimizers(document):
        retired[section, "fused_opt"] = _Retired("the fused optimizer is always used where the device has one")
        retired |= _keys_of_other_optimizers(document, section)
    for section in _DATA:
        type_ = str(document.get((section, "type"), "paired_images")).rpartition(".")[2]
        if not _is_remote(document, section):
            retired |= {(section, key): _Retired(_ONLY_REMOTE) for key in ("cache", *_CREDENTIALS)}
        retired[section, "paired"] = _Retired("follows from the type of the data set", type_.startswith("paired"))
        if type_ in _WITHOUT_LABEL:
            retired |= {(section, key): _Retired(f"had no effect on {type_}") for key in _LABEL_KEYS}
        if type_ in _WITHOUT_CLASSES:
            retired[section, "num_classes"] = _Retired(f"had no effect on {type_}")
        retired |= _keys_of_clips(document, section)
        for key_path in _input_types(document, section):
            for key in ("use_dont_care", "interpolator"):
                retired |= {(*key_path, key): _Retired("only that of the data section has an effect")}
    notes = _drop_keys_of_the_other_discriminator(document)
    for key_path, (why, default) in retired.items():
        if not document.has(key_path) or is_taken(document, key_path):
            continue
        if document.drop(key_path) not in (None, "", {}, [], default):
            notes.append(f"{document.origin(key_path)}: {join_keys(key_path)}: {why}; dropped")
    return notes


def _keys_of_clips(document: Document, section: str) -> dict[KeyPath, _Retired]:
    """What says how long clips are where there are none, and how many frames of a held-out video lie side by side."""
    retired: dict[KeyPath, _Retired] = {}
    for split in _SPLITS:
        named = str(document.get((section, split, "type")) or document.get((section, "type"), "paired_images"))
        of_split, cls = named.rpartition(".")[2], find_dataset(named)
        if split != "train" and cls is not None and cls.is_video:
            why = "frames of a video come one after the other, one a batch"
            retired[section, split, "batch_size"] = _Retired(why, 1)
        if of_split in _OF_STILLS:
            why = f"has no effect on {of_split}"
        elif split != "train":
            why = "only that of the training set has an effect"
        else:
            continue
        retired |= {(section, split, *key_path): _Retired(why, default) for key_path, default in _CLIP_KEYS.items()}
    return retired


def _keys_of_other_optimizers(document: Document, section: str) -> dict[KeyPath, _Retired]:
    """Keys that the type of an optimizer, or of its schedule, does not read, but others do.

    Of types that the reference did not have, only those that say nothing.
    """
    retired: dict[KeyPath, _Retired] = {}
    for (*inner, key), default in _OPTIMIZER_KEYS.items():
        key_path = (section, *inner, key)
        type_ = type_at(document, key_path)
        if type_ in _OLD_TYPES or document.get(key_path) in (None, default):
            retired[key_path] = _Retired(f"has no effect with type: {type_}", default)
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
