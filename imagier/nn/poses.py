"""Label maps of people: what DensePose and OpenPose channels mean, and where faces and hands are.

Channels 0 to 2 of a label with `DENSEPOSE` are those of DensePose (channel 2: the part of the body, from 1 to 24); the
last ones of a label with `OPENPOSE` are strokes of one channel each, the face last, the hands second and third to last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.errors import UserError

PoseType = Literal["open", "both"]
CropKind = Literal["face", "hand"]

DENSEPOSE, OPENPOSE = "pose_maps-densepose", "poses-openpose"
"""The input types of the label that hold people."""

PARTS = 24
"""Parts of the body that DensePose tells apart."""

_FACE_PARTS = (23, 24)

_BODY_PARTS = ((0,), (1, 2), (3, 4), (5, 6), range(7, 11), range(11, 15), range(15, 19), range(19, 23), _FACE_PARTS)
"""Background, torso, hands, feet, upper and lower legs, upper and lower arms, head."""


class Box(NamedTuple):
    """A square part of one image of a batch."""

    sample: int
    top: int
    left: int
    side: int


class Crops(NamedTuple):
    """Parts of the images of a batch, all to be resized to one size."""

    boxes: list[Box]
    side: int


def has_densepose(
    lengths: Mapping[str, int],
    pose_type: PoseType | None,
    *,
    normalized: Collection[str],
    should_remove_face: bool,
    has_foreground: bool,
) -> bool:
    """Whether a label of people begins with DensePose, in [0, 1]. lengths: channels of its input types, in order.

    normalized: types in [-1, 1]. UserError if DensePose is one of these, if it comes later, or if it is missing where
    it is removed (from) or the third channel is read.
    """
    if sum(lengths.values()) < 3 and has_foreground:
        what = f"needs a label of 3 channels or more, the third of which shows people, not {sum(lengths.values())}"
        raise UserError(what, where="trainer.has_foreground", code="no-densepose")
    if pose_type is None:
        if has_foreground and DENSEPOSE in lengths:
            what = f"needs gen.pose_type, which brings {DENSEPOSE} to the range where people can be told from nothing"
            raise UserError(what, where="trainer.has_foreground", code="needs-key")
        return False
    if DENSEPOSE not in lengths:
        for key, is_needed in (("pose_type: open", pose_type == "open"), ("remove_face_labels", should_remove_face)):
            if is_needed:
                what, advice = f"needs {DENSEPOSE} in the label", "name it in data.input_labels, or leave this out"
                raise UserError(what, where=f"gen.{key}", advice=advice, code="no-densepose")
        return False
    if (next(iter(lengths)), lengths[DENSEPOSE]) != (DENSEPOSE, 3):
        what = f"{DENSEPOSE} must be the first of them, of 3 channels"
        raise UserError(what, where="data.input_labels", code="densepose-not-first")
    if DENSEPOSE in normalized:
        what = "must be false: its values are brought to [-1, 1] later"
        raise UserError(what, where=f"data.input_types: {DENSEPOSE}: normalize", code="densepose-normalized")
    return True


def draw_dropped_parts(share: float, rng: torch.Generator) -> Tensor | None:
    """Which parts of the body are removed from all labels of a step, bool [24], each with this chance; None for 0."""
    return torch.rand(PARTS, generator=rng, device=rng.device) < share if share else None


def normalize_densepose(label: Tensor, dropped: Tensor | None = None) -> Tensor:
    """A label N x T x L x H x W in [0, 1] -> the same in [-1, 1], its parts spread over the whole range.

    dropped: bool [24], which parts of the body are removed from the DensePose channels.
    """
    dense, others = label[:, :, :3], label[:, :, 3:]
    part = dense[:, :, 2:] * 255
    if dropped is not None:
        number = part.nan_to_num().round().clamp(0, PARTS)
        is_dropped = F.pad(dropped, (1, 0))[number.long()]  # part 0 is the background
        dense = torch.where(is_dropped & ((part - number).abs() < 0.1), 0.0, dense)
    spread = torch.cat([dense[:, :, :2], dense[:, :, 2:] * (255 / PARTS), others], dim=2)
    return spread * 2 - 1


def filter_pose_label(label: Tensor, pose_type: PoseType | None, *, should_remove_face: bool) -> Tensor:
    """What the generator sees of a label N x ... x L x H x W: all, or no DensePose ("open"), or one without faces.

    Its DensePose channels are in [-1, 1]; where a face is removed, they are -1.
    """
    if pose_type == "open":
        return label.narrow(-3, 3, label.shape[-3] - 3)
    if pose_type is None or not should_remove_face:
        return label
    dense, others = label.split([3, label.shape[-3] - 3], dim=-3)
    face = _find_parts(dense, _FACE_PARTS)
    return torch.cat([dense * (1 - face) - face, others], dim=-3)


def _find_parts(label: Tensor, numbers: Iterable[int]) -> Tensor:
    """Where parts of the body are: N x ... x L x H x W, DensePose in [-1, 1] -> N x ... x 1 x H x W, 0 or 1."""
    part = (label.narrow(-3, 2, 1) / 2 + 0.5) * PARTS
    return torch.stack([(part - number).abs() < 0.1 for number in numbers]).any(dim=0).to(label.dtype)


def find_body_parts(label: Tensor) -> Tensor:
    """N x L x H x W, DensePose in [-1, 1] -> N x 9 x H x W, 0 or 1: where each of the larger parts of people is."""
    return torch.cat([_find_parts(label, numbers) for numbers in _BODY_PARTS], dim=-3)


def find_face(label: Tensor) -> Tensor:
    """N x L x H x W, DensePose in [-1, 1] -> N x 1 x H x W, 0 or 1."""
    return _find_parts(label, _FACE_PARTS)


def find_foreground(label: Tensor) -> Tensor:
    """Where people are, and 7 px around: N x L x H x W, DensePose in [-1, 1] -> N x 1 x H x W, 0 or 1."""
    return (F.max_pool2d(label[:, 2:3], 15, stride=1, padding=7) > -1).to(label.dtype)


def find_faces(label: Tensor, lengths: Mapping[str, int]) -> Crops:
    """A square around the face of each sample; without a face, one at the top of the image.

    label: N x L x H x W. lengths: channels of each of its input types. UserError if none of them shows faces.
    """
    height, width = label.shape[-2:]
    has_densepose = DENSEPOSE in lengths
    if not has_densepose and lengths.get(OPENPOSE, 0) <= 3:
        raise _lacks("faces", f"{DENSEPOSE}, or {OPENPOSE} of more than 3 channels")
    mask = label[:, 2] > 0.9 if has_densepose else label[:, -1] > 0
    boxes = []
    for sample, extent in enumerate(_list_extents(mask)):
        center_y, center_x, side = height // 4, width // 2, height // 32 * 8
        if extent is not None:
            top, bottom, left, right = extent
            center_x = (left + right) // 2
            center_y = (top + bottom) // 2 if has_densepose else (3 * top + 2 * bottom) // 5
            side = int((bottom - top) * 1.25) if has_densepose else int((right - left) * 2.5)
            side = min(width, max(32, side))
            center_y, center_x = _keep_inside(center_y, side, height), _keep_inside(center_x, side, width)
        boxes.append(Box(sample, center_y - side // 2, center_x - side // 2, side // 2 * 2))
    return Crops(boxes, _side("face", height // 32 * 8, height))


def find_hands(label: Tensor, lengths: Mapping[str, int]) -> Crops:
    """A square around each hand that is seen: of each sample the one of channel -3, then that of channel -2.

    label: N x L x H x W. UserError if it has too few channels to show hands.
    """
    height, width = label.shape[-2:]
    if label.shape[1] <= 6:
        raise _lacks("hands", f"{OPENPOSE} of more than 6 channels")
    side = _side("hand", height // 64 * 8, height)
    boxes = []
    for number, extent in enumerate(_list_extents((label[:, -3:-1] == 1).flatten(0, 1))):
        if extent is not None:
            top, bottom, left, right = extent
            center_y = _keep_inside((top + bottom) // 2, side, height)
            center_x = _keep_inside((left + right) // 2, side, width)
            boxes.append(Box(number // 2, center_y - side // 2, center_x - side // 2, side))
    return Crops(boxes, side)


FINDERS: dict[CropKind, Callable[[Tensor, Mapping[str, int]], Crops]] = {"face": find_faces, "hand": find_hands}
"""How the crops of each kind are found; each is a function of the label alone."""


def crop(images: Tensor, crops: Crops) -> Tensor | None:
    """Parts of images N x C x H x W, bilinear: M x C x side x side, or None if there are none."""
    found = []
    for sample, top, left, side in crops.boxes:
        part = images[sample : sample + 1, :, top : top + side, left : left + side]
        if part.shape[-2:] != (crops.side, crops.side):
            part = F.interpolate(part, size=(crops.side, crops.side), mode="bilinear", align_corners=True)
        found.append(part)
    return torch.cat(found) if found else None


def _list_extents(masks: Tensor) -> list[tuple[int, int, int, int] | None]:
    """The first and last row, and the first and last column, of each mask N x H x W; None if it is empty."""
    masks = masks.cpu()
    found: list[tuple[int, int, int, int] | None] = []
    for mask in masks:
        rows, columns = mask.any(dim=1).nonzero()[:, 0].tolist(), mask.any(dim=0).nonzero()[:, 0].tolist()
        found.append((rows[0], rows[-1], columns[0], columns[-1]) if rows else None)
    return found


def _keep_inside(center: int, side: int, size: int) -> int:
    """The center of a square nearest to this one that lies inside an image."""
    return max(side // 2, min(size - 1 - side // 2, center))


def _side(kind: str, side: int, height: int) -> int:
    if side == 0:
        what = f"a {kind} has no pixel in images of {height} rows"
        raise UserError(what, where="dis", advice="enlarge the images (augmentations)", code="image-too-small")
    return side


def _lacks(what: str, needed: str) -> UserError:
    advice = f"name {needed}, in data.input_labels, or remove the discriminator"
    return UserError(
        f"the label shows no {what}", where="dis.additional_discriminators", advice=advice, code="no-crops"
    )
