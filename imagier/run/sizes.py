"""The sizes of images at inference: what is kept of augmentations, and how an image gets the size of its input."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor

from imagier.config.augmentation_keys import AugmentationKeys
from imagier.config.schema import Split
from imagier.data.augmentation.augment import get_crop_size
from imagier.data.augmentation.warp import Size
from imagier.recipe import Batch
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

_KEPT = ("resize_h_w", "resize_smallest_side", "center_crop_h_w", "max_time_step")


def replace_augmentations(split: Split, keys: Mapping[str, Any]) -> Split:
    """A split with other augmentations."""
    return replace(split, augmentations=cast(AugmentationKeys, dict(keys)))


def keep_deterministic(keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Augmentations that are the same every time and mirror nothing, and the names of those that are left out.

    A random crop becomes one of the middle, also that of a random aspect.
    """
    kept: dict[str, Any] = {}
    left_out = []
    for name, value in keys.items():
        if name in _KEPT:
            kept[name] = value
        elif name == "random_crop_h_w":
            kept["center_crop_h_w"] = value
            left_out += [name] if str(keys.get("resize_h_w")) != str(value) else []
        elif name == "random_resize_h_w_aspect":
            kept["resize_smallest_side"] = kept["center_crop_h_w"] = _box(value)
            left_out.append(name)
        elif value is not False:
            left_out.append(name)
    return kept, left_out


def keep_resize(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The first resize alone, so that the whole image is seen at the scale of the training."""
    for name in ("resize_h_w", "resize_smallest_side"):
        if name in keys:
            return {name: keys[name]}
    if "random_resize_h_w_aspect" in keys:
        return {"resize_smallest_side": _box(keys["random_resize_h_w_aspect"])}
    crop = get_crop_size(keys)
    return {} if crop is None else {"resize_smallest_side": f"{crop[0]}, {crop[1]}"}


def _box(text: str) -> str:
    return ",".join(text.split(",")[:2])


def get_size(batch: Batch, names: Collection[str]) -> Size | None:
    """Height and width of the first of the named tensors with pixels."""
    shapes = (batch[name].shape for name in names if name in batch and batch[name].ndim >= 4)
    return next(((shape[-2], shape[-1]) for shape in shapes), None)


def get_stored_size(batch: Batch, input_types: Sequence[str]) -> Size | None:
    """The largest height and width of the files of a batch of one sample, before augmentation, if they are known."""
    names = [f"original_h_w_{name}" for name in input_types]
    sizes = [batch[name][0].tolist() for name in names if name in batch]
    return (max(size[0] for size in sizes), max(size[1] for size in sizes)) if sizes else None


def pad_to_multiple(batch: Batch, names: Collection[str], multiple: int) -> Batch:
    """The named images N x C x H x W, extended at the right and at the bottom by their last row and column."""
    padded = {}
    for name in names:
        if name not in batch or batch[name].ndim != 4:
            continue
        height, width = batch[name].shape[-2:]
        if height % multiple or width % multiple:
            padded[name] = F.pad(batch[name], (0, -width % multiple, 0, -height % multiple), mode="replicate")
    return batch.replace(**padded)


def resize(image: Tensor, size: Size) -> Tensor:
    """C x H x W -> the same of a size, bicubic; as it is if it has that size."""
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image.float()[None], size=size, mode="bicubic", antialias=True)[0]


@dataclass
class SizeReport:
    """Counts images, and those painted in another size than that of their input."""

    images: int = 0
    others: int = 0
    example: str = ""

    def log(self, folder: Path, runtime: Runtime, how: str, advice: str = "") -> None:
        """Logs how many images all ranks have written into a folder, and how many of them are of another size.

        how: what became of these ("not of" the size of their input).
        """
        images, others = runtime.all_reduce_sum(self.images), runtime.all_reduce_sum(self.others)
        if images == 0:
            return
        line = f"{folder}: {images} images"
        if others:
            line += f", {others} of them {how} the size of their input (height x width; {self.example}){advice}"
        logger.info(line)

    def add(self, name: str, painted: Size, stored: Size | None) -> None:
        """painted, stored: height and width of the image as the network paints it, and of the file it is made of."""
        self.images += 1
        if stored is None or painted == stored:
            return
        self.others += 1
        if not self.example:
            self.example = f"{name}: {painted[0]} x {painted[1]} px of an input of {stored[0]} x {stored[1]} px"
