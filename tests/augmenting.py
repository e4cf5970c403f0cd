"""Augmentation from a script, and the two ways to resize written another time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from imagier.data.augment import Augmented, Augmenter

Images = dict[str, np.ndarray]


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
    return Augmenter(keys, masks)(images, Scripted(0.5, 0.5, *numbers))


def same_size(height: int, width: int) -> dict[str, str]:
    """A first resize that does nothing to pictures of this size."""
    return {"resize_h_w": f"{height}, {width}"}


def nearest(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """source index = min(floor(target index * source length / target length), source length - 1)"""
    rows = np.minimum(np.arange(height) * picture.shape[0] // height, picture.shape[0] - 1)
    columns = np.minimum(np.arange(width) * picture.shape[1] // width, picture.shape[1] - 1)
    return picture[rows][:, columns]


def resized(picture: np.ndarray, size: tuple[int, int], is_mask: bool, interpolation: int = cv2.INTER_LINEAR) -> Any:
    if is_mask:
        return nearest(picture, *size)
    return cv2.resize(picture, size[::-1], interpolation=interpolation).reshape(*size, picture.shape[2])
