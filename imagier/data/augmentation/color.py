"""Augmentations that change the values of images and leave every pixel where it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from imagier.errors import UserError


@dataclass(frozen=True)
class Change:
    """One change of values, drawn."""

    run: Callable[[np.ndarray], np.ndarray]
    """8-bit image H x W x C -> the same, changed."""
    by_pixel: bool
    """Every pixel is changed by itself, so that it does not matter whether pixels move before or after."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """An image H x W x C, changed if it has 8 bits: what has other values holds numbers, not light."""
        if image.dtype != np.uint8:
            return image
        return self.run(image).reshape(image.shape)


Draw = Callable[[float, random.Random], "Change | None"]
"""(the draw that decides whether it runs, source of its parameters) -> the change."""


def contrast(options: Mapping[str, Any]) -> Draw:
    """A factor, then a shift, each uniform within its limits."""
    factors, shifts = _pair(options["contrast_limit"]), _pair(options["brightness_limit"])

    def draw(gate: float, rng: random.Random) -> Change | None:
        if gate >= options["p"]:
            return None
        factor = 1 + rng.uniform(*factors)
        shift = rng.uniform(*shifts)
        table = np.clip(np.arange(256) * factor + shift * 255, 0, 255).astype(np.uint8)
        return Change(lambda x: cv2.LUT(x, table), by_pixel=True)

    return draw


def gamma(options: Mapping[str, Any]) -> Draw:
    """255 (x / 255)^g, g in per cent a whole number between the limits."""
    low, high = int(options["gamma_limit_lb"]), int(options["gamma_limit_ub"])

    def draw(gate: float, rng: random.Random) -> Change | None:
        if gate >= options["p"]:
            return None
        curve = 255 * (np.arange(256) / 255) ** (rng.randint(low, high) / 100)
        table = np.clip(np.rint(curve), 0, 255).astype(np.uint8)
        return Change(lambda x: cv2.LUT(x, table), by_pixel=True)

    return draw


def blur(options: Mapping[str, Any]) -> Draw:
    """The mean over a square of a random odd size."""
    sizes = _odd_sizes(options["blur_limit"])

    def draw(gate: float, rng: random.Random) -> Change | None:
        if gate >= options["p"]:
            return None
        size = rng.choice(sizes)
        return Change(lambda x: cv2.blur(x, (size, size)), by_pixel=False)

    return draw


def motion_blur(options: Mapping[str, Any]) -> Draw:
    """The mean along a line between two random points of a square of a random odd size."""
    sizes = _odd_sizes(options["blur_limit"])

    def draw(gate: float, rng: random.Random) -> Change | None:
        if gate >= options["p"]:
            return None
        size = rng.choice(sizes)
        ends = rng.sample([(x, y) for x in range(size) for y in range(size)], 2)
        kernel = np.zeros((size, size), np.float32)
        cv2.line(kernel, ends[0], ends[1], 1.0, thickness=1)
        kernel /= kernel.sum()
        return Change(lambda x: cv2.filter2D(x, -1, kernel), by_pixel=False)

    return draw


def compression(options: Mapping[str, Any]) -> Draw:
    """Through JPEG and back, at a random quality from the lower limit to 100."""

    def draw(gate: float, rng: random.Random) -> Change | None:
        if gate >= options["p"]:
            return None
        quality = rng.randint(int(options["quality_lower"]), 100)

        def through_jpeg(x: np.ndarray) -> np.ndarray:
            if x.shape[2] not in (1, 3):
                raise UserError(
                    f"a JPEG has 1 or 3 channels, and this image {x.shape[2]}",
                    where="compression",
                    advice="drop the others (alpha), or the augmentation",
                )
            _, data = cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, quality])
            decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            assert decoded is not None
            return decoded

        return Change(through_jpeg, by_pixel=False)

    return draw


def _pair(limit: float | Sequence[float]) -> tuple[float, float]:
    return (limit[0], limit[1]) if isinstance(limit, Sequence) else (-limit, limit)


def _odd_sizes(limit: int | Sequence[int]) -> list[int]:
    low, high = (limit[0], limit[1]) if isinstance(limit, Sequence) else (3, limit)
    if not 3 <= low <= high or low % 2 == 0:
        raise UserError(f"expected a number from 3, or an odd one and a larger one, got {limit!r}", where="blur_limit")
    return list(range(low, high + 1, 2))
