"""Random changes of a sample: resize, crop, flip, rotate, colour. One draw serves all pictures of the sample.

Order, sizes, interpolation and the sequence of random numbers are those of the configs' augmentation keys as the
reference ran them: first one resize, then every other key in the order of the config.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from imagier.errors import UserError

Images = dict[str, np.ndarray]
Size = tuple[int, int]


@dataclass(frozen=True)
class Augmented:
    """Pictures after augmentation, all of one size."""

    images: Images
    is_flipped: bool


class Augmenter:
    """The augmentations of one split, from the config's mapping (its order counts)."""

    def __init__(self, keys: Mapping[str, Any], masks: Sequence[str], interpolator: str = "INTER_LINEAR") -> None:
        """masks: the input types to resize by nearest neighbour. interpolator: an OpenCV name, for the first resize."""
        self.masks = frozenset(masks)
        self.interpolation = _opencv_constant(interpolator)
        self.ops = [(name, _OPS[name](value)) for name, value in keys.items() if name in _OPS and value is not False]
        self.target_size = _first_resize(keys)
        self._arguments = (dict(keys), tuple(masks), interpolator)

    def __reduce__(self) -> tuple[Any, ...]:
        return Augmenter, self._arguments  # its operations are closures, which cannot be sent to a spawned worker

    def __call__(self, images: Images, rng: random.Random) -> Augmented:
        """Pictures H x W x C by input type (sizes may differ) -> the same, all of one size, from one set of draws."""
        rng.random()  # the sequence of draws keeps the gates of always-on operations
        rng.random()
        size = self.target_size(original_size(images))
        images = {name: _resize(x, size, self._filter(name, self.interpolation)) for name, x in images.items()}
        flipped = False
        for name, op in self.ops:
            gate = rng.random()
            images = op(images, self.masks, gate, rng)
            flipped ^= name == "horizontal_flip" and gate < 0.5
        return Augmented({name: np.ascontiguousarray(x) for name, x in images.items()}, flipped)

    def _filter(self, name: str, interpolation: int) -> int:
        return cv2.INTER_NEAREST if name in self.masks else interpolation


def original_size(images: Images) -> Size:
    """The largest height and the largest width among the pictures."""
    return max(x.shape[0] for x in images.values()), max(x.shape[1] for x in images.values())


def parse_h_w(text: str | int) -> Size:
    """ "h, w" or one number for both -> (h, w) in pixels."""
    if isinstance(text, int):
        return text, text
    numbers = [part.strip() for part in text.split(",")]
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise UserError(f"expected 'height, width' in pixels, got {text!r}")
    return int(numbers[0]), int(numbers[1])


def crop_size(keys: Mapping[str, Any]) -> Size | None:
    """The size of the last crop among the augmentations (it is the size of what comes out), or None."""
    crops = [parse_h_w(value) for name, value in keys.items() if name.endswith("crop_h_w")]
    return crops[-1] if crops else None


def output_size(keys: Mapping[str, Any]) -> Size | None:
    """The size of all augmented pictures, where it does not depend on the picture."""
    if "resize_h_w" in keys and "random_scale_limit" not in keys:
        return crop_size(keys) or parse_h_w(keys["resize_h_w"])
    return crop_size(keys) or (_aspect_size(keys) if "random_resize_h_w_aspect" in keys else None)


def _first_resize(keys: Mapping[str, Any]) -> Callable[[Size], Size]:
    if "resize_h_w" in keys:
        fixed = parse_h_w(keys["resize_h_w"])
        return lambda size: fixed
    if "resize_smallest_side" in keys:
        smallest = parse_h_w(keys["resize_smallest_side"])
        return lambda size: _keep_aspect(size, smallest)
    if "random_resize_h_w_aspect" in keys:
        return lambda size: size  # that operation itself takes its crop from the whole picture
    crop = crop_size(keys)
    if crop is None:
        raise UserError("augmentations need one of resize_smallest_side, resize_h_w, random_crop_h_w, center_crop_h_w")
    return lambda size: crop


def _keep_aspect(size: Size, smallest: Size) -> Size:
    height, width = size
    least_h, least_w = smallest
    if height * least_w <= width * least_h:
        return least_h, round(least_h * width / height)
    return round(least_w * height / width), least_w


def _resize(x: np.ndarray, size: Size, interpolation: int) -> np.ndarray:
    if x.shape[:2] == size:
        return x
    return _with_channels(cv2.resize(x, size[::-1], interpolation=interpolation), x)


def _with_channels(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    return x.reshape(*x.shape[:2], like.shape[2])


# Every operation: (images, masks, gate, rng) -> images. `gate` is the draw that decides whether it runs.
_Op = Callable[[Images, frozenset[str], float, random.Random], Images]


def _rotate(limit: float) -> _Op:
    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        angle = rng.uniform(-limit, limit)
        if limit == 0:
            return images
        out = {}
        for name, x in images.items():
            height, width = x.shape[:2]
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
            flags = cv2.INTER_NEAREST if name in masks else cv2.INTER_LINEAR
            turned = cv2.warpAffine(x, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
            out[name] = _with_channels(turned, x)
        return out

    return run


def _random_rotate_90(_: object) -> _Op:
    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        if gate >= 0.5:
            return images
        turns = rng.randint(0, 3)
        return {name: np.rot90(x, turns) for name, x in images.items()}

    return run


def _random_scale(limit: float) -> _Op:
    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        scale = rng.uniform(1, 1 + limit)
        return {
            name: _resize(
                x,
                (int(x.shape[0] * scale), int(x.shape[1] * scale)),
                cv2.INTER_NEAREST if name in masks else cv2.INTER_LINEAR,
            )
            for name, x in images.items()
        }

    return run


def _random_resize_aspect(text: str) -> _Op:
    """The largest box of a random aspect that fits into the picture, at a random place, resized."""
    size = _aspect_size({"random_resize_h_w_aspect": text})
    try:
        smallest, largest = map(float, text.replace("(", " ").replace(")", " ").split(",")[2:])
    except ValueError:
        smallest = largest = 0.0
    if not 0 < smallest <= largest:
        raise UserError(f"random_resize_h_w_aspect: expected 'h, w, (smallest aspect, largest aspect)', got {text!r}")
    low, high = math.log(smallest), math.log(largest)

    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        aspect = math.exp(rng.uniform(low, high))
        top, left = rng.random(), rng.random()
        out = {}
        for name, x in images.items():
            height, width = x.shape[:2]
            box_w = min(width, round(height * aspect))
            box_h = min(height, round(box_w / aspect))
            y, x0 = int((height - box_h) * top), int((width - box_w) * left)
            box = np.ascontiguousarray(x[y : y + box_h, x0 : x0 + box_w])
            out[name] = _resize(box, size, cv2.INTER_NEAREST if name in masks else cv2.INTER_LINEAR)
        return out

    return run


def _aspect_size(keys: Mapping[str, Any]) -> Size:
    return parse_h_w(",".join(keys["random_resize_h_w_aspect"].split(",")[:2]))


def _random_crop(text: str) -> _Op:
    size = parse_h_w(text)

    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        top, left = rng.random(), rng.random()
        return {
            name: _crop(x, int((x.shape[0] - size[0]) * top), int((x.shape[1] - size[1]) * left), size)
            for name, x in images.items()
        }

    return run


def _center_crop(text: str) -> _Op:
    size = parse_h_w(text)

    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        return {
            name: _crop(x, (x.shape[0] - size[0]) // 2, (x.shape[1] - size[1]) // 2, size) for name, x in images.items()
        }

    return run


def _crop(x: np.ndarray, top: int, left: int, size: Size) -> np.ndarray:
    height, width = x.shape[:2]
    if size[0] > height or size[1] > width:
        raise UserError(
            f"crop {size[0]} x {size[1]} is larger than the image, {height} x {width} after resizing; "
            "lower the crop or raise resize_smallest_side"
        )
    return x[top : top + size[0], left : left + size[1]]


def _horizontal_flip(_: object) -> _Op:
    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        return {name: x[:, ::-1] for name, x in images.items()} if gate < 0.5 else images

    return run


def _on_pictures(images: Images, masks: frozenset[str], change: Callable[[np.ndarray], np.ndarray]) -> Images:
    """Changes the values of 8-bit pictures that are no masks."""
    return {
        name: x if name in masks or x.dtype != np.uint8 else _with_channels(change(np.ascontiguousarray(x)), x)
        for name, x in images.items()
    }


def _pair(limit: float | Sequence[float]) -> tuple[float, float]:
    return (limit[0], limit[1]) if isinstance(limit, Sequence) else (-limit, limit)


def _table(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _contrast(options: Mapping[str, Any]) -> _Op:
    contrast, brightness = _pair(options["contrast_limit"]), _pair(options["brightness_limit"])

    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        if gate >= options["p"]:
            return images
        factor = 1 + rng.uniform(*contrast)
        shift = rng.uniform(*brightness)
        table = np.clip(np.arange(256) * factor + shift * 255, 0, 255).astype(np.uint8)
        return _on_pictures(images, masks, lambda x: cv2.LUT(x, table))

    return run


def _odd_sizes(limit: int | Sequence[int]) -> list[int]:
    low, high = (limit[0], limit[1]) if isinstance(limit, Sequence) else (3, limit)
    if not 3 <= low <= high or low % 2 == 0:
        raise UserError(f"blur_limit: expected a number from 3, or an odd one and a larger one, got {limit!r}")
    return list(range(low, high + 1, 2))


def _blur(options: Mapping[str, Any]) -> _Op:
    sizes = _odd_sizes(options["blur_limit"])

    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        if gate >= options["p"]:
            return images
        size = rng.choice(sizes)
        return _on_pictures(images, masks, lambda x: cv2.blur(x, (size, size)))

    return run


def _motion_blur(options: Mapping[str, Any]) -> _Op:
    sizes = _odd_sizes(options["blur_limit"])

    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        if gate >= options["p"]:
            return images
        size = rng.choice(sizes)
        ends = rng.sample([(x, y) for x in range(size) for y in range(size)], 2)
        kernel = np.zeros((size, size), np.float32)
        cv2.line(kernel, ends[0], ends[1], 1.0, thickness=1)
        kernel /= kernel.sum()
        return _on_pictures(images, masks, lambda x: cv2.filter2D(x, -1, kernel))

    return run


def _compression(options: Mapping[str, Any]) -> _Op:
    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        if gate >= options["p"]:
            return images
        quality = rng.randint(int(options["quality_lower"]), 100)

        def through_jpeg(x: np.ndarray) -> np.ndarray:
            if x.shape[2] == 4:
                raise UserError("compression: JPEG has no alpha channel; drop the channel or the augmentation")
            _, data = cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, quality])
            decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            assert decoded is not None
            return decoded

        return _on_pictures(images, masks, through_jpeg)

    return run


def _gamma(options: Mapping[str, Any]) -> _Op:
    low, high = int(options["gamma_limit_lb"]), int(options["gamma_limit_ub"])

    def run(images: Images, masks: frozenset[str], gate: float, rng: random.Random) -> Images:
        if gate >= options["p"]:
            return images
        table = _table(255 * (np.arange(256) / 255) ** (rng.randint(low, high) / 100))
        return _on_pictures(images, masks, lambda x: cv2.LUT(x, table))

    return run


def _opencv_constant(name: str) -> int:
    names = [n for n in dir(cv2) if n.startswith("INTER_")]
    if name not in names:
        raise UserError(f"interpolator {name!r}: OpenCV has no such constant; try INTER_LINEAR or INTER_AREA")
    return getattr(cv2, name)


_OPS: dict[str, Callable[[Any], _Op]] = {
    "rotate": _rotate,
    "random_rotate_90": _random_rotate_90,
    "random_scale_limit": _random_scale,
    "random_resize_h_w_aspect": _random_resize_aspect,
    "random_crop_h_w": _random_crop,
    "center_crop_h_w": _center_crop,
    "horizontal_flip": _horizontal_flip,
    "contrast": _contrast,
    "blur": _blur,
    "motion_blur": _motion_blur,
    "compression": _compression,
    "gamma": _gamma,
}
