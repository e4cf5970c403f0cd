"""The reference's spellings, rewritten to ours; the only file that knows them. Nothing is dropped in silence."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from imagier.config.find import CLASSES, find
from imagier.config.load import Document, Place

_TYPE_PREFIXES = (
    "imaginaire.generators.",
    "imaginaire.discriminators.",
    "imaginaire.trainers.",
    "imaginaire.datasets.",
)

_OFF: tuple[Any, ...] = (None, False, "", {}, [])
"""What says that something is not wanted."""


class _Retired(NamedTuple):
    """A key that was read and not used, or whose work is done differently here: dropped with a line."""

    why: str
    default: Any = False
    """What it held where a config did not give it, and so says nothing: dropped without a line."""


_RETIRED: dict[Place, _Retired] = {
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
    ("trainer", "gan_recon"): _Retired("had no effect on this method"),
    ("trainer", "aug_policy"): _Retired("this method does not use DiffAugment"),
    ("gen_opt", "fused_opt"): _Retired("the fused optimizer is always used where the device has one"),
    ("dis_opt", "fused_opt"): _Retired("the fused optimizer is always used where the device has one"),
    ("gen", "version"): _Retired("had no effect"),
    ("gen", "activation_norm_params", "cond_dims"): _Retired("is counted from the data section"),
    ("data", "paired"): _Retired("follows from the type of the data set, which reads pairs", True),
    ("test_data", "paired"): _Retired("follows from the type of the data set, which reads pairs", True),
    ("data", "val", "drop_last"): _Retired("every held-out sample counts"),
    ("aws_credentials_file",): _Retired("only needed for data in an object store"),
    ("common",): _Retired("this method takes nothing from it"),
    ("local_rank",): _Retired("is set at run time", 0),
    ("source_filename",): _Retired("is set at run time"),
    ("date_uid",): _Retired("is set at run time"),
    ("logdir",): _Retired("is set with --logdir"),
}

_COUNTED = "is counted from the data section; remove it here"

# Keys that mean something which cannot be done here: an error that says so.
_REFUSED: dict[Place, str] = {
    ("gen", "num_labels"): _COUNTED,
    ("dis", "num_labels"): _COUNTED,
    ("gen", "activation_norm_params", "partial"): "this version has no partial convolutions",
    ("gen_opt", "scale"): "belongs to the optimizer madam, which this version does not have",
    ("dis_opt", "scale"): "belongs to the optimizer madam, which this version does not have",
    ("gen_opt", "g_bound"): "belongs to the optimizer madam, which this version does not have",
    ("dis_opt", "g_bound"): "belongs to the optimizer madam, which this version does not have",
}

# The same for keys of the sections data and test_data, and of their splits: what it is that cannot be read.
_UNREADABLE = {
    "keypoint_data_types": "key points",
    "input_few_shot_labels": "few-shot labels",
    "initial_few_shot_K": "few-shot data",
    "num_classes": "class-conditional data",
    "num_frames_G": "video",
    "num_frames_D": "video",
    "first_last_only": "video",
    "sample_far_frames_more": "video",
    "has_foreground": "the foreground of people",
    "output_h_w": "the crops of few-shot video",
    "for_face_dataset": "face key points",
    "for_pose_dataset": "poses",
    "cache": "object stores",
    "move_dont_care": "the op move_dont_care",
    "rename_inputs": "the op rename_inputs",
}
_UNREADABLE_IN_SPLITS = {
    "initial_sequence_length": "video",
    "max_sequence_length": "video",
    "individual_video_frame_augmentations": "video",
}

_DATA = ("data", "test_data")
_SPLITS = ("train", "val", "test")
_LABEL_OPS = "imaginaire.model_utils.label::"
_KNOWN_OPS = {f"{_LABEL_OPS}make_one_hot": "make_one_hot", f"{_LABEL_OPS}concat_labels": "concat_labels"}


def modernize(document: Document) -> list[str]:
    """Rewrites the reference's spellings in place; returns one line for every key that was dropped.

    What means something that cannot be done here is noted in the document, for `check` to tell with all that is wrong.
    """
    _rename_values(document)
    _list_roots(document)
    _refuse(document)
    _rewrite_ops(document)
    return _retire(document)


def _rename_values(document: Document) -> None:
    """Module paths to names, "None" to null, and "" to "none" where a norm is meant."""
    for place, value in list(document.walk()):
        if not isinstance(value, str):
            continue
        if place[-1] == "type":
            for prefix in _TYPE_PREFIXES:
                value = value.removeprefix(prefix)
            document.set(place, value)
        if value in ("", "None") and str(place[-1]).endswith(("norm_type", "nonlinearity")):
            document.set(place, "none")
        elif value == "None":
            document.set(place, None)


def _list_roots(document: Document) -> None:
    """One root given as text becomes a list."""
    for section in _DATA:
        for split in _SPLITS:
            place = (section, split, "roots")
            roots = document.get(place)
            if isinstance(roots, str):
                document.set(place, [roots] if roots else [])


def _refuse(document: Document) -> None:
    refused = dict(_REFUSED)
    for section in _DATA:
        refused |= {(section, key): f"this version cannot read {what}" for key, what in _UNREADABLE.items()}
        for split in _SPLITS:
            for key, what in _UNREADABLE_IN_SPLITS.items():
                refused[section, split, key] = f"this version cannot read {what}"
            refused[section, split, "augmentations", "max_time_step"] = "this version cannot read video"
    for place, why in refused.items():
        if not _is_there(document, place) or _is_taken(document, place):
            continue
        if document.get(place) in _OFF:
            document.drop(place)
        else:
            document.refuse(place, why)


def _rewrite_ops(document: Document) -> None:
    """Op strings: the label ops are part of the pipeline; any other is refused."""
    for section in _DATA:
        place: Place = (section, "full_data_ops")
        text = document.get(place)
        if isinstance(text, str):
            ops = [_KNOWN_OPS.get(op.strip(), op.strip()) for op in text.split(",") if op.strip()]
            document.set(place, ", ".join(ops) or None)
            for op in ops:
                if op not in _KNOWN_OPS.values() and _is_there(document, place):
                    document.refuse(place, f"this version has no op {op!r}")
        _refuse_ops(document, (section, "full_data_post_aug_ops"))
        for place in _input_types(document, section):
            for key in ("pre_aug_ops", "post_aug_ops"):
                _refuse_ops(document, (*place, key))


def _refuse_ops(document: Document, place: Place) -> None:
    text = document.get(place)
    if not _is_there(document, place):
        return
    if text in _OFF:
        document.drop(place)
    else:
        document.refuse(place, f"this version has no op {text!r}")


def _input_types(document: Document, section: str) -> list[Place]:
    """The places of the options of each input type."""
    places: list[Place] = []
    for around in ((section,), *((section, split) for split in _SPLITS)):
        entries = document.get((*around, "input_types"))
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            places += [(*around, "input_types", index, name) for name in entry] if isinstance(entry, dict) else []
    return places


def _retire(document: Document) -> list[str]:
    retired = dict(_RETIRED)
    for section in _DATA:
        for place in _input_types(document, section):
            for key in ("use_dont_care", "interpolator"):
                retired |= {(*place, key): _Retired("only that of the data section has an effect")}
    notes = []
    for place, (why, default) in retired.items():
        if not _is_there(document, place) or _is_taken(document, place):
            continue
        if document.drop(place) not in (None, "", {}, [], default):
            notes.append(f"{document.origin(place)}: {'.'.join(map(str, place))}: {why}; dropped")
    return notes


def _is_there(document: Document, place: Place) -> bool:
    section = document.get(place[:-1])
    return isinstance(section, dict) and place[-1] in section


def _is_taken(document: Document, place: Place) -> bool:
    """Whether the key may mean something to the class that its section names: it takes it, or is the user's own."""
    name = document.get((*place[:1], "type"))
    class_name = CLASSES.get(str(place[0]))
    if class_name is None or not isinstance(name, str):
        return False
    try:
        cls = find("models", name, class_name)
    except LookupError:
        return False  # told by `check`
    return "." in name or (len(place) == 2 and place[1] in inspect.signature(cls).parameters)
