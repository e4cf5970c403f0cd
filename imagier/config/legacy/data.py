"""The reference's spellings in the sections `data` and `test_data`, rewritten to ours."""

from __future__ import annotations

from typing import Any, NamedTuple

from imagier.config.legacy.people import list_input_types
from imagier.config.load import Document, KeyPath, join_keys
from imagier.config.lookup import class_at, type_at
from imagier.config.own_keys import SECTIONS, SPLITS
from imagier.config.rules.remote import is_url

OFF: tuple[Any, ...] = (None, False, "", {}, [])
"""What says that something is not wanted."""


class Retired(NamedTuple):
    """A key that was read and not used, or whose work is done differently here: dropped with a line."""

    why: str
    default: Any = False
    """What it held where a config did not give it, and so says nothing: dropped without a line."""


CREDENTIALS = ("aws_credentials_file",)
ONLY_REMOTE = "only needed for data in an object store"

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
    "for_pose_dataset": "poses",
}
_UNREADABLE_IN_SPLITS = {
    "individual_video_frame_augmentations": "few-shot video",
}

_WRITTEN_BACK = ("data_types", "num_channels", "extensions")
"""What a config holds that the reference wrote out, but nobody had to give."""

_DROP_LAST = {
    "train": "the rest of an epoch begins the next",
    "val": "every held-out sample counts",
    "test": "every sample of a test set is made",
}

_CLIP_KEYS: dict[KeyPath, Any] = {
    ("initial_sequence_length",): None,
    ("max_sequence_length",): 100,
    ("augmentations", "max_time_step"): 1,
}
_LABEL_KEYS = ("input_labels", "full_data_ops", "one_hot_num_classes", "move_dont_care", "rename_inputs")
"""Keys that say how input types make up a label."""

_LABEL_OPS = "imaginaire.model_utils.label::"
_KNOWN_OPS = {f"{_LABEL_OPS}{op}": op for op in ("make_one_hot", "concat_labels", "move_dont_care")}
_KNOWN_OPS["imaginaire.model_utils.rename_inputs::rename_inputs"] = "rename_inputs"


def translate(document: Document) -> list[str]:
    """Rewrites spellings in place; returns a line for each word that is another now."""
    _list_roots(document)
    _move_credentials(document)
    return _rename_words(document)


def list_refused_keys(section: str) -> dict[KeyPath, str]:
    """Keys that mean something which cannot be done here, and why."""
    what: dict[KeyPath, str] = {(section, key): words for key, words in _UNREADABLE.items()}
    what |= {(section, split, key): words for split in SPLITS for key, words in _UNREADABLE_IN_SPLITS.items()}
    return {key_path: f"this version cannot read {words}" for key_path, words in what.items()}


def list_retired_keys(document: Document, section: str) -> dict[KeyPath, Retired]:
    """Keys that have no effect, and why."""
    retired = {**_keys_of_other_datasets(document, section), **_keys_of_clips(document, section)}
    retired |= {(section, key): Retired("is counted from input_types") for key in _WRITTEN_BACK}
    retired[section, "for_face_dataset"] = Retired("no input type holds the points of a face", None)
    retired |= {(section, split, "drop_last"): Retired(_DROP_LAST[split]) for split in SPLITS}
    if not _is_remote(document, section):
        retired |= {(section, key): Retired(ONLY_REMOTE) for key in ("cache", *CREDENTIALS)}
    for key_path in list_input_types(document, section):
        for key in ("use_dont_care", "interpolator"):
            retired |= {(*key_path, key): Retired("only that of the data section has an effect")}
    return retired


def rewrite_ops(document: Document) -> None:
    """Op strings: the label ops are part of the pipeline; any other is refused."""
    for section in SECTIONS:
        key_path: KeyPath = (section, "full_data_ops")
        text = document.get(key_path)
        if isinstance(text, str):
            ops = [_KNOWN_OPS.get(op.strip(), op.strip()) for op in text.split(",") if op.strip()]
            document.set(key_path, ", ".join(ops) or None)
            for op in ops:
                if op not in _KNOWN_OPS.values() and document.has(key_path):
                    document.refuse(key_path, f"this version has no op {op!r}")
        _refuse_ops(document, (section, "full_data_post_aug_ops"))
        for key_path in list_input_types(document, section):
            if document.get((*key_path, "pre_aug_ops")) == "decode_json" and key_path[-1] in _points(document, section):
                document.drop((*key_path, "pre_aug_ops"))  # it is how key points are read
            for key in ("pre_aug_ops", "post_aug_ops"):
                _refuse_ops(document, (*key_path, key))


def _refuse_ops(document: Document, key_path: KeyPath) -> None:
    text = document.get(key_path)
    if not document.has(key_path):
        return
    if text in OFF:
        document.drop(key_path)
    else:
        document.refuse(key_path, f"this version has no op {text!r}")


def _points(document: Document, section: str) -> list[Any]:
    """The types that hold key points."""
    names = document.get((section, "keypoint_data_types"))
    return names if isinstance(names, list) else []


def _list_roots(document: Document) -> None:
    """One root given as text becomes a list."""
    for section in SECTIONS:
        for split in SPLITS:
            key_path = (section, split, "roots")
            roots = document.get(key_path)
            if isinstance(roots, str):
                document.set(key_path, [roots] if roots else [])


def _move_credentials(document: Document) -> None:
    """The credentials to each section that reads from an object store; elsewhere they have no effect."""
    path = document.get(CREDENTIALS)
    for section in SECTIONS if path not in OFF else ():
        key_path = (section, *CREDENTIALS)
        if _is_remote(document, section) and not document.has(key_path):
            document.set(key_path, path, document.origin(CREDENTIALS))
    if path not in OFF and any(_is_remote(document, section) for section in SECTIONS):
        document.drop(CREDENTIALS)


def _is_remote(document: Document, section: str) -> bool:
    """Whether a split of the section lies in an object store."""
    for split in SPLITS:
        roots = document.get((section, split, "roots"))
        roots = roots if isinstance(roots, list) else []
        is_store = document.get((section, split, "dataset_type")) == "object_store"
        if is_store or any(is_url(str(root)) for root in roots):
            return True
    return False


def _rename_words(document: Document) -> list[str]:
    """Words of version 0.1 that are others now."""
    notes = []
    for key_path in ((section, "on_error") for section in SECTIONS):
        if document.get(key_path) == "stop":
            document.set(key_path, "raise")
            notes.append(f"{document.origin(key_path)}: {join_keys(key_path)}: stop is called raise now")
    return notes


def _keys_of_other_datasets(document: Document, section: str) -> dict[KeyPath, Retired]:
    """What a data section says that its type of data set does not read."""
    cls, type_ = class_at(document, (section, "type")), type_at(document, (section, "type"))
    retired: dict[KeyPath, Retired] = {}
    why = Retired(f"had no effect on {str(type_).rpartition('.')[2]}")
    if cls is not None:
        retired[section, "paired"] = Retired("follows from the type of the data set", cls.is_paired)
        retired |= {(section, key): why for key in (() if cls.makes_label else _LABEL_KEYS)}
        retired |= {} if cls.has_classes else {(section, "num_classes"): why}
    return retired


def _keys_of_clips(document: Document, section: str) -> dict[KeyPath, Retired]:
    """What says how long clips are where there are none, and how many frames of a held-out video lie side by side."""
    retired: dict[KeyPath, Retired] = {}
    for split in SPLITS:
        here = (section, split, "type")
        cls, type_ = class_at(document, here), type_at(document, here)
        if cls is None:
            continue
        if split != "train" and cls.is_video:
            why = "frames of a video come one after the other, one a batch"
            retired[section, split, "batch_size"] = Retired(why, 1)
        if not cls.is_video:
            why = f"has no effect on {str(type_).rpartition('.')[2]}"
        elif split != "train":
            why = "only that of the training set has an effect"
        else:
            continue
        retired |= {(section, split, *key_path): Retired(why, default) for key_path, default in _CLIP_KEYS.items()}
    return retired
