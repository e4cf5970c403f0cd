"""The reference's spellings, rewritten to ours; the only file that knows them. Nothing is dropped in silence."""

from __future__ import annotations

from typing import Any

from imagier.config.load import ConfigError, Document, Place

_TYPE_PREFIXES = (
    "imaginaire.generators.",
    "imaginaire.discriminators.",
    "imaginaire.trainers.",
    "imaginaire.datasets.",
)

_OFF: tuple[Any, ...] = (None, False, "", {}, [])

# Keys that the reference read and did not use, or whose work is done differently here: dropped with a line.
_RETIRED: dict[Place, str] = {
    ("trainer", "hparam_to_tensorboard"): "had no effect",
    ("trainer", "distributed_data_parallel"): "had no effect; gradients are averaged with torch.distributed",
    ("trainer", "distributed_data_parallel_params"): "not needed; parameters without a gradient are handled",
    ("trainer", "delay_allreduce"): "had no effect",
    ("trainer", "amp_gp"): "had no effect",
    ("trainer", "val_sample_size"): "had no effect on this method",
    ("trainer", "kid_num_subsets"): "had no effect on this method",
    ("trainer", "eval_network"): "had no effect on this method",
    ("trainer", "aug_policy"): "this method does not use DiffAugment",
    ("gen_opt", "fused_opt"): "the fused optimizer is always used where the device has one",
    ("dis_opt", "fused_opt"): "the fused optimizer is always used where the device has one",
    ("gen", "version"): "had no effect",
    ("aws_credentials_file",): "only needed for data in an object store",
    ("common",): "this method takes nothing from it",
    ("local_rank",): "is set at run time",
    ("source_filename",): "is set at run time",
    ("date_uid",): "is set at run time",
    ("logdir",): "is set with --logdir",
}

# Keys of the data section that need what this version does not read: an error that says so.
_NOT_SUPPORTED = {
    "keypoint_data_types": "key points",
    "input_few_shot_labels": "few-shot labels",
    "initial_few_shot_K": "few-shot data",
    "num_frames_G": "video",
    "num_frames_D": "video",
    "output_h_w": "the crops of few-shot video",
    "for_face_dataset": "face key points",
    "for_pose_dataset": "poses",
    "cache": "object stores",
    "move_dont_care": "the op move_dont_care",
    "rename_inputs": "the op rename_inputs",
}

_LABEL_OPS = "imaginaire.model_utils.label::"
_KNOWN_OPS = {f"{_LABEL_OPS}make_one_hot": "make_one_hot", f"{_LABEL_OPS}concat_labels": "concat_labels"}


def modernize(document: Document) -> list[str]:
    """Rewrites the reference's spellings in place; returns one line for every key that was dropped.

    ConfigError for keys that mean something which cannot be done here.
    """
    _rename_values(document)
    _list_roots(document)
    errors = _unsupported(document)
    _rewrite_ops(document, errors)
    if errors:
        raise ConfigError(errors)
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
    for section in ("gen", "dis", "trainer", "data", "gen_opt", "dis_opt", "cudnn", "inference_args"):
        if section in document.tree and document.tree[section] is None:
            document.tree[section] = {}


def _list_roots(document: Document) -> None:
    """One root given as text becomes a list."""
    for section in ("data", "test_data"):
        for name in ("train", "val", "test"):
            place = (section, name)
            if not isinstance(document.get(place), dict):
                continue
            roots = document.get((*place, "roots"))
            if isinstance(roots, str):
                document.set((*place, "roots"), [roots] if roots else [])


def _unsupported(document: Document) -> list[str]:
    errors = []
    for section in ("data", "test_data"):
        for key, what in _NOT_SUPPORTED.items():
            value = document.get((section, key))
            if value in _OFF:
                if key in document.get((section,), {}):
                    document.drop((section, key))
                continue
            errors.append(f"{document.origin((section, key))}: {section}.{key}: {what} cannot be read by this version")
    return errors


def _rewrite_ops(document: Document, errors: list[str]) -> None:
    """Op strings: the label ops are part of the pipeline; any other is refused."""
    for section in ("data", "test_data"):
        place = (section, "full_data_ops")
        text = document.get(place)
        if isinstance(text, str):
            ops = [op.strip() for op in text.split(",") if op.strip()]
            unknown = [op for op in ops if op not in _KNOWN_OPS and op not in _KNOWN_OPS.values()]
            errors += [
                f"{document.origin(place)}: {section}.full_data_ops: no op {op!r} in this version" for op in unknown
            ]
            document.set(place, ", ".join(_KNOWN_OPS.get(op, op) for op in ops) or None)
        _refuse_ops(document, (section, "full_data_post_aug_ops"), errors)
        types = document.get((section, "input_types"), [])
        for index, entry in enumerate(types if isinstance(types, list) else []):
            if not isinstance(entry, dict):
                continue
            for name, options in entry.items():
                here = (section, "input_types", index, name)
                if isinstance(options, dict):
                    options.pop("use_dont_care", None)  # only the section's own key ever counted
                    options.pop("interpolator", None)
                for key in ("pre_aug_ops", "post_aug_ops"):
                    _refuse_ops(document, (*here, key), errors)


def _refuse_ops(document: Document, place: Place, errors: list[str]) -> None:
    text = document.get(place)
    if isinstance(text, str) and text.strip():
        dotted = ".".join(map(str, place))
        errors.append(f"{document.origin(place)}: {dotted}: no op {text.strip()!r} in this version")


def _retire(document: Document) -> list[str]:
    notes = []
    for place, why in _RETIRED.items():
        section = document.get(place[:-1])
        if isinstance(section, dict) and place[-1] in section:
            value: Any = document.get(place)
            document.drop(place)
            if value not in _OFF:
                notes.append(f"{document.origin(place)}: {'.'.join(map(str, place))}: {why}; dropped")
    return notes
