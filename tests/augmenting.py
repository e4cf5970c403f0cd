"""Augmentation from a script, and the two ways to resize written another time."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from imagier.data.augmentation.augment import Augmenter, find_largest_size

Images = dict[str, np.ndarray]


@dataclass(frozen=True)
class Augmented:
    """Images after augmentation, all of one size."""

    images: Images
    is_flipped: bool


class Scripted(random.Random):
    """Hands out the given numbers in [0, 1), then 0.99, and writes down what it is asked for."""

    def __new__(cls, *numbers: float) -> Scripted:
        return super().__new__(cls)  # before Python 3.11 it takes no more than a seed

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self.numbers = list(numbers)
        self.asked: list[tuple] = []

    def _next(self, *question: object) -> float:
        self.asked.append(question)
        return self.numbers.pop(0) if self.numbers else 0.99

    def random(self) -> float:
        return self._next("random")

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self._next("uniform", a, b)

    def randint(self, a: int, b: int) -> int:
        return a + int((b - a + 1) * self._next("randint", a, b))

    def choice(self, seq: Any) -> Any:
        return seq[int(len(seq) * self._next("choice", tuple(seq)))]


def augment(keys: Mapping[str, Any], images: Images, *numbers: float, masks: tuple[str, ...] = ("map",)) -> Augmented:
    """Augments with these draws after the two that start the sequence."""
    return carried_out(Augmenter(keys), images, Scripted(0.5, 0.5, *numbers), masks)


def carried_out(
    augmenter: Augmenter, images: Images, rng: random.Random, masks: Collection[str] = ("map",)
) -> Augmented:
    """Images H x W x C by input type (sizes may differ) -> the same, all of one size, from one set of draws."""
    drawn = augmenter.draw(find_largest_size([x.shape[:2] for x in images.values()]), rng)
    changed = {
        name: drawn.apply(x, is_nearest=name in masks, has_colors=name not in masks) for name, x in images.items()
    }
    return Augmented(changed, drawn.is_flipped)


def by_hand(keys: Mapping[str, Any], images: Images, masks: tuple[str, ...], rng: random.Random) -> tuple[Images, bool]:
    """The frequent operations, step after step, written once more from their description alone."""
    draws = [rng.random(), rng.random()]
    images = {name: resized(x, _first_size(keys, images), name in masks) for name, x in images.items()}
    flipped = False
    for key, value in keys.items():
        if key == "resize_smallest_side" or value is False:
            continue
        height, width = next(iter(images.values())).shape[:2]
        draws.append(rng.random())
        if key == "random_scale_limit":
            scale = 1 + value * rng.random()
            size = int(height * scale), int(width * scale)
            # OpenCV's rounding differs from `nearest` where the formula gives a whole number
            kinds = {name: cv2.INTER_NEAREST if name in masks else cv2.INTER_LINEAR for name in images}
            images = {name: resized(x, size, False, kinds[name]) for name, x in images.items()}
        elif key == "rotate":
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -value + 2 * value * rng.random(), 1)
            images = {name: _warped(x, matrix, name in masks) for name, x in images.items()}
        elif key == "horizontal_flip" and draws[-1] < 0.5:
            flipped = True
            images = {name: np.flip(x, 1) for name, x in images.items()}
        elif key == "random_rotate_90" and draws[-1] < 0.5:
            for _ in range(rng.randint(0, 3)):
                images = {name: np.flip(x.transpose(1, 0, 2), 0) for name, x in images.items()}
        elif key == "random_crop_h_w":
            crop_h, crop_w = map(int, value.split(","))
            y, x0 = int((height - crop_h) * rng.random()), int((width - crop_w) * rng.random())
            images = {name: x[y : y + crop_h, x0 : x0 + crop_w] for name, x in images.items()}
    return images, flipped


def _first_size(keys: Mapping[str, Any], images: Images) -> tuple[int, int]:
    height, width = np.array([x.shape[:2] for x in images.values()]).max(axis=0)
    side = keys["resize_smallest_side"]
    longest = int(np.round(side * max(height, width) / min(height, width)))
    return (side, longest) if height <= width else (longest, side)


def _warped(image: np.ndarray, matrix: np.ndarray, is_mask: bool) -> np.ndarray:
    flags = cv2.INTER_NEAREST if is_mask else cv2.INTER_LINEAR
    size = image.shape[1::-1]
    image = np.ascontiguousarray(image)
    return cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101).reshape(image.shape)


def same_size(height: int, width: int) -> dict[str, str]:
    """A first resize that does nothing to images of this size."""
    return {"resize_h_w": f"{height}, {width}"}


def nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """source index = min(floor(target index * source length / target length), source length - 1)"""
    rows = np.minimum(np.arange(height) * image.shape[0] // height, image.shape[0] - 1)
    columns = np.minimum(np.arange(width) * image.shape[1] // width, image.shape[1] - 1)
    return image[rows][:, columns]


def resized(image: np.ndarray, size: tuple[int, int], is_mask: bool, interpolation: int = cv2.INTER_LINEAR) -> Any:
    if is_mask:
        return nearest(image, *size)
    image = np.ascontiguousarray(image)
    return cv2.resize(image, size[::-1], interpolation=interpolation).reshape(*size, image.shape[2])
