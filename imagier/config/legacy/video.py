"""The reference's spellings of what video methods read, rewritten to ours: much of it stood in the section `data`."""

from __future__ import annotations

from collections.abc import Callable

from imagier.config.legacy.data import OFF, Retired
from imagier.config.legacy.people import list_input_types
from imagier.config.load import Document, KeyPath
from imagier.config.own_keys import SECTIONS

Accepts = Callable[[Document, KeyPath], bool]
"""Whether a key means something to the class that its section names."""

_POSES: KeyPath = ("data", "for_pose_dataset")

_MOVED: dict[KeyPath, KeyPath] = {
    ("data", "num_frames_G"): ("gen", "num_frames"),
    ("data", "num_frames_D"): ("dis", "num_frames"),
    ("data", "has_foreground"): ("trainer", "has_foreground"),
    (*_POSES, "pose_type"): ("gen", "pose_type"),
    (*_POSES, "remove_face_labels"): ("gen", "remove_face_labels"),
    (*_POSES, "random_drop_prob"): ("trainer", "random_drop_prob"),
    ("trainer", "loss_weight", "L1"): ("trainer", "loss_weight", "l1"),
}

_FEW_SHOT = "fs_vid2vid"
_HYPER: KeyPath = ("gen", "hyper")
_USE_OF_LABELS: KeyPath = (*_HYPER, "method_to_use_ref_labels")

_CROPS = "imaginaire.model_utils.fs_vid2vid::"
_CROP_KINDS = {f"{_CROPS}crop_face_from_output": "face", f"{_CROPS}crop_hand_from_output": "hand"}

_COMBINE: KeyPath = ("gen", "flow", "multi_spade_combine")
_EMBEDS: tuple[KeyPath, ...] = (("gen", "embed"), (*_COMBINE, "embed"))


RETIRED_ARGUMENTS: dict[KeyPath, Retired] = {
    ("inference_args", "save_fake_only"): Retired("frames are written alone, and side by side on request", True),
    ("inference_args", "seq_index"): Retired("had no effect"),
}
"""Of inference."""

_DECODE_POINTS = "convert::imaginaire.model_utils.wc_vid2vid.render::decode_unprojections"
_POINTS = "unprojections"


def rename_discriminator(document: Document) -> None:
    """The reference had one class of discriminators for all video methods; ours of few-shot vid2vid sees references."""
    if document.get(("dis", "type")) == _FEW_SHOT and document.get(("trainer", "type")) != _FEW_SHOT:
        document.set(("dis", "type"), "vid2vid")


def translate(document: Document, accepts: Accepts) -> list[str]:
    """Rewrites spellings in place, where the classes of the sections know what they become.

    Returns a line for each thing that is done in another way here.
    """
    _name_pose_type(document, accepts)
    for old, new in _MOVED.items():
        if document.has(old) and accepts(document, new) and not document.has(new):
            origin = document.origin(old)
            document.set(new, document.drop(old), origin)
    if accepts(document, ("gen", "pose_type")):
        _drop_rest_of_poses(document)
    if accepts(document, _COMBINE):
        _rewrite_generator(document)
    if accepts(document, _USE_OF_LABELS):
        _name_use_of_labels(document)
    if accepts(document, ("dis", "additional_discriminators")):
        _rewrite_crops(document)
    return _read_points_from_images(document)


def list_retired_keys(document: Document, accepts: Accepts) -> dict[KeyPath, Retired]:
    """Keys of video generators that were read by nothing."""
    if not accepts(document, _COMBINE):
        return {}
    retired: dict[KeyPath, Retired] = {}
    retired |= {("gen", key): Retired("had no effect") for key in ("num_downsamples", "do_checkpoint")}
    if accepts(document, _HYPER):
        kernels = "had no effect: kernels are those of activation_norm_params"
        retired |= {
            (*_HYPER, "kernel_size"): Retired(kernels, document.get(("gen", "activation_norm_params", "kernel_size"))),
            ("gen", "flow", "num_res_blocks"): Retired("had no effect on this method, which reads num_blocks", 6),
            ("gen", "flow", "no_flow"): Retired("had no effect"),
        }
    return retired


def _name_pose_type(document: Document, accepts: Accepts) -> None:
    """The reference knew poses by the section alone, and any type but "open" was "both"."""
    if isinstance(document.get(_POSES), dict) and accepts(document, ("gen", "pose_type")):
        key_path = (*_POSES, "pose_type")
        if document.get(key_path) != "open":
            document.set(key_path, "both", document.origin(_POSES if not document.has(key_path) else key_path))


def _drop_rest_of_poses(document: Document) -> None:
    """What is left says nothing; else the section is refused later."""
    rest = document.get(_POSES)
    if isinstance(rest, dict) and all(value in OFF for value in rest.values()):
        document.drop(_POSES)


def _rewrite_generator(document: Document) -> None:
    if document.get(_COMBINE) is False:
        document.set(_COMBINE, None)
    if document.get(("gen", "activation_norm_type")) == "spatially_adaptive":
        document.drop(("gen", "activation_norm_type"))
    for embed in _EMBEDS:
        if not document.has((*embed, "use_embed")):
            continue
        if document.get((*embed, "use_embed")) in OFF:
            document.refuse((*embed, "use_embed"), "label maps are always encoded (without, the reference failed)")
        else:
            document.drop((*embed, "use_embed"))


def _read_points_from_images(document: Document) -> list[str]:
    """Pickles of points: `imagier data build unprojections` makes images of them."""
    notes = []
    for key_path in (path for section in SECTIONS for path in list_input_types(document, section)):
        op = (*key_path, "post_aug_ops")
        if document.get(op) == _DECODE_POINTS:
            origin = document.origin(op)
            document.drop(op)
            document.set((*key_path, "ext"), "png", origin)
            document.set((*key_path, "type"), _POINTS, origin)
            notes.append(f"{origin}: {key_path[-1]}: are PNGs here; `imagier data build unprojections` makes them")
    return notes


def _name_use_of_labels(document: Document) -> None:
    """The reference looked for parts of the word; without one labels were not used, but it may be misspelled."""
    word = document.get(_USE_OF_LABELS)
    if isinstance(word, str):
        known = next((known for known in ("concat", "mul") if known in word), word or "none")
        document.set(_USE_OF_LABELS, known)


def _rewrite_crops(document: Document) -> None:
    others = document.get(("dis", "additional_discriminators"))
    for name in others if isinstance(others, dict) else ():
        key_path: KeyPath = ("dis", "additional_discriminators", name)
        if document.has((*key_path, "vis")):
            document.drop((*key_path, "vis"))  # read by nothing in training
        kind = document.get((*key_path, "crop_func"))
        if isinstance(kind, str):
            document.set((*key_path, "crop_func"), _CROP_KINDS.get(kind, kind))
