"""What must hold between the augmentations of a split."""

from __future__ import annotations

import re
from collections.abc import Iterator

from imagier.config.augmentation_keys import AugmentationKeys
from imagier.config.load import KeyPath, Mistake

_ASPECT = re.compile(r"\s*\d+\s*,\s*\d+\s*,\s*\(?\s*[\d.]+\s*,\s*[\d.]+\s*\)?\s*")
_SIZES = frozenset({"resize_smallest_side", "resize_h_w", "random_crop_h_w", "center_crop_h_w"})


def check_augmentations(keys: AugmentationKeys, key_path: KeyPath) -> Iterator[Mistake]:
    """Every broken rule about the augmentations of a split."""
    sizes: dict[str, tuple[int, int]] = {}
    for key in _SIZES & keys.keys():
        value = dict(keys)[key]
        size = _size(value)
        if size is None:
            what = f"expected 'height, width' in pixels, got {value!r}"
            yield Mistake((*key_path, key), what, code="not-a-size")
        else:
            sizes[key] = size
    if "resize_smallest_side" in keys and "resize_h_w" in keys:
        what = "excludes resize_smallest_side"
        yield Mistake((*key_path, "resize_h_w"), what, "keep one of them", "excludes-key")
    if not (_SIZES | {"random_resize_h_w_aspect"}) & keys.keys():
        what = "needs one of resize_smallest_side, resize_h_w, random_crop_h_w, center_crop_h_w"
        yield Mistake(key_path, what, code="needs-key")
    for key in ("random_crop_h_w", "center_crop_h_w"):
        if key in sizes and "random_resize_h_w_aspect" not in keys:
            yield from _crop_fits(sizes, key, key_path)
    aspect = keys.get("random_resize_h_w_aspect")
    if aspect is not None and not _ASPECT.fullmatch(aspect):
        what = f"expected 'height, width, (smallest aspect, largest aspect)', got {aspect!r}"
        yield Mistake((*key_path, "random_resize_h_w_aspect"), what, code="not-a-size")
    gamma = keys.get("gamma")
    if gamma is not None and gamma["gamma_limit_lb"] > gamma["gamma_limit_ub"]:
        what = "must not be less than gamma_limit_lb"
        yield Mistake((*key_path, "gamma", "gamma_limit_ub"), what, code="wrong-order")


def _crop_fits(sizes: dict[str, tuple[int, int]], key: str, key_path: KeyPath) -> Iterator[Mistake]:
    height, width = sizes[key]
    resized = ""
    if "resize_h_w" in sizes:
        image_h, image_w = sizes["resize_h_w"]
        if height > image_h or width > image_w:
            resized = f"resize_h_w: {image_h}, {image_w}"
    elif "resize_smallest_side" in sizes:
        least_h, least_w = sizes["resize_smallest_side"]
        if height > least_h and width > least_w:
            resized = f"resize_smallest_side: {least_h if least_h == least_w else f'{least_h}, {least_w}'}"
    if resized:
        what = f"a crop of {height}, {width} is larger than the image ({resized})"
        yield Mistake((*key_path, key), what, code="crop-too-large")


def _size(value: object) -> tuple[int, int] | None:
    parts = [part.strip() for part in str(value).split(",")]
    if isinstance(value, int):
        parts *= 2
    if len(parts) != 2 or not all(part.isdecimal() and len(part) < 7 and int(part) > 0 for part in parts):
        return None
    return int(parts[0]), int(parts[1])
