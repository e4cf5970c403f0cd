"""The reference's spellings of key points that are drawn, and of clips with frames for reference, rewritten to ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from imagier.config.load import Document, KeyPath
from imagier.config.own_keys import SECTIONS, SPLITS

Accepts = Callable[[Document, KeyPath], bool]
"""Whether a key means something to the class that its section names."""

_POSE, _FACE = "imaginaire.utils.visualization.pose::", "imaginaire.utils.visualization.face::"
_DECODE = "decode_json"

_CODECS: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {
    (f"convert::{_POSE}openpose_to_npy", f"vis::{_POSE}draw_openpose_npy"): ("openpose", {}),
    (f"convert::{_POSE}openpose_to_npy_largest_only", f"vis::{_POSE}draw_openpose_npy"): (
        "openpose",
        {"largest_only": True},
    ),
    (f"vis::{_FACE}connect_face_keypoints",): ("face_landmarks", {}),
    (f"convert::{_FACE}npy_to_tensor",): ("face_landmarks", {}),
}
"""The ops of an input type, besides that which decodes it, and the codec that does the same."""

_OPTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "openpose": (
        "for_pose_dataset",
        {
            "basic_points_only": "basic_points_only",
            "remove_face_labels": "remove_face",
            "random_drop_prob": "random_drop_prob",
        },
    ),
    "face_landmarks": (
        "for_face_dataset",
        {name: name for name in ("add_upper_face", "add_distance_transform", "add_positional_encode")},
    ),
}
"""The section of options of each codec, and its keys by their old names."""

_CROPS = "imaginaire.model_utils.fs_vid2vid::"
_CROP_OPS = {f"{_CROPS}crop_face_from_data": "face", f"{_CROPS}crop_person_from_data": "person"}
_NORMALIZE = f"{_FACE}normalize_and_connect_face_keypoints"
_LABEL = "imaginaire.model_utils.label::"
_CONCAT_FEW_SHOT = f"{_LABEL}concat_few_shot_labels"
_NORMALIZE_KEYS = {"normalize_momentum": "momentum", "smooth_kernel_size": "window"}

_PINS = ("driving_seq_index", "few_shot_seq_index", "few_shot_frame_index")
_LIMITS = ("num_videos_to_test", "num_frames_per_video")
_ALL = -1

_FEW_SHOT = "few_shot_"

_NATIVE, _VIDEOS = "paired_few_shot_videos_native", "videos"
"""A data set of video files, all of which had this type."""


def translate(document: Document, accepts: Accepts) -> None:
    """Rewrites spellings in place, where the classes of the sections know what they become."""
    for section in SECTIONS:
        _rewrite_native(document, section)
        drawn = dict(_name_codecs(document, section))
        if accepts(document, (section, "initial_few_shot_K")):
            _rewrite_full_data_ops(document, section)
            _drop_few_shot_labels(document, section)
        _drop_options(document, section, set(drawn.values()), accepts)
        names = document.get((section, "keypoint_data_types"))
        if drawn and isinstance(names, list):
            document.set((section, "keypoint_data_types"), [name for name in names if name not in drawn])
    _move_pins(document, accepts)
    for key in _LIMITS:
        old, new = ("trainer", key), ("data", "val", key)
        if document.has(old) and document.has(new[:-1]) and accepts(document, new) and not document.has(new):
            origin, value = document.origin(old), document.drop(old)
            document.set(new, None if value == _ALL else value, origin)


def _rewrite_native(document: Document, section: str) -> None:
    """Two frames of a video file, one to be made of the other: a clip of one frame with one for reference."""
    if document.get((section, "type")) != _NATIVE:
        return
    origin = document.origin((section, "type"))
    document.set((section, "type"), _NATIVE.removesuffix("_native"), origin)
    document.set((section, "initial_few_shot_K"), 1, origin)
    for key in ("initial_sequence_length", "max_sequence_length"):
        document.set((section, key), 1, origin)
    names = [key_path[-1] for key_path in list_input_types(document, section)]
    if _VIDEOS in names and "images" not in names and not document.has((section, "rename_inputs")):
        document.set((section, "rename_inputs"), {"images": _VIDEOS}, origin)
        ops = document.get((section, "full_data_ops")) or f"{_LABEL}concat_labels"
        document.set((section, "full_data_ops"), f"rename_inputs, {ops}", origin)


def _name_codecs(document: Document, section: str) -> Iterator[tuple[str, str]]:
    """Gives input types whose ops are known their codec; yields their names and codecs."""
    for key_path in list_input_types(document, section):
        ops: list[str] = []
        for key in ("pre_aug_ops", "post_aug_ops"):
            ops += _split(document.get((*key_path, key)))
        found = _CODECS.get(tuple(op for op in ops if op != _DECODE))
        if found is None or _DECODE not in ops or document.has((*key_path, "type")):
            continue
        codec, options = found
        for key in ("pre_aug_ops", "post_aug_ops"):
            if document.has((*key_path, key)):
                document.drop((*key_path, key))
        document.set((*key_path, "type"), codec, document.origin(key_path))
        around, keys = _OPTIONS[codec]
        given = document.get((section, around))
        given = dict(given) if isinstance(given, dict) else {}
        if not given.get("add_distance_transform"):
            given.pop("add_positional_encode", None)  # there, it had no effect then
        for name, value in {**options, **{new: given[old] for old, new in keys.items() if given.get(old)}}.items():
            document.set((*key_path, name), value, document.origin((section, around)))
        yield str(key_path[-1]), codec


def list_input_types(document: Document, section: str) -> list[KeyPath]:
    """The places of the options of each input type."""
    key_paths: list[KeyPath] = []
    for around in ((section,), *((section, split) for split in SPLITS)):
        entries = document.get((*around, "input_types"))
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            key_paths += [(*around, "input_types", index, name) for name in entry] if isinstance(entry, dict) else []
    return key_paths


def _split(ops: Any) -> list[str]:
    return [op.strip() for op in ops.split(",") if op.strip()] if isinstance(ops, str) else []


def _rewrite_full_data_ops(document: Document, section: str) -> None:
    """Crops, and the proportions of faces, become keys; the label of frames for reference is always made."""
    key_path: KeyPath = (section, "full_data_ops")
    rest, origin = [], document.origin(key_path)
    for op in _split(document.get(key_path)):
        if op in _CROP_OPS:
            document.set((section, "crop"), _CROP_OPS[op], origin)
        elif op == _NORMALIZE:
            given = document.get((section, "for_face_dataset"))
            given = given if isinstance(given, dict) else {}
            params = {new: given[old] for old, new in _NORMALIZE_KEYS.items() if old in given}
            document.set((section, "normalize_landmarks"), params, origin)
        elif op != _CONCAT_FEW_SHOT:
            rest.append(op)
    if document.has(key_path):
        document.set(key_path, ", ".join(rest) or None)


def _drop_few_shot_labels(document: Document, section: str) -> None:
    key_path: KeyPath = (section, "input_few_shot_labels")
    names, labels = document.get(key_path), document.get((section, "input_labels"))
    if isinstance(names, list) and isinstance(labels, list) and names == [f"{_FEW_SHOT}{name}" for name in labels]:
        document.drop(key_path)
    elif names:
        document.refuse(
            key_path, f"frames for reference have the labels of the clip: must be {_FEW_SHOT}<input_labels>"
        )


def _drop_options(document: Document, section: str, codecs: set[str], accepts: Accepts) -> None:
    """What the codecs have taken, and what nothing read; the rest is refused later."""
    face: KeyPath = (section, "for_face_dataset")
    options = document.get(face)
    if "face_landmarks" in codecs and isinstance(options, dict):
        for key in (*_OPTIONS["face_landmarks"][1], *_NORMALIZE_KEYS):
            options.pop(key, None)
        if not options:
            document.drop(face)
    pose: KeyPath = (section, "for_pose_dataset")
    options = document.get(pose)
    if not isinstance(options, dict):
        return
    if "openpose" in codecs:
        options.pop("basic_points_only", None)
    if section != "data" and accepts(document, ("gen", "pose_type")):
        document.drop(pose)  # what the networks read of it stands in `data`


def _move_pins(document: Document, accepts: Accepts) -> None:
    """Which sequence moves which face or person: to the split that inference reads."""
    places: list[KeyPath] = [(section, split) for section in ("test_data", "data") for split in ("test", "val")]
    for place in [place for place in places if isinstance(document.get(place), dict)][:1]:
        for key in _PINS:
            old, new = ("inference_args", key), (*place, key)
            if document.has(old) and accepts(document, new) and not document.has(new):
                origin = document.origin(old)
                document.set(new, document.drop(old), origin)
