"""Random changes of a sample: resize, crop, flip, rotate, color. One draw serves all images of the sample.

Order, sizes and the sequence of random numbers are those of the configs' augmentation keys as the reference ran them:
first one resize, then every other key in the order of the config. What moves pixels is composed into one warp.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from imagier.data.augmentation import color, warp
from imagier.data.augmentation.color import Change
from imagier.data.augmentation.warp import Moves, Size, Step
from imagier.errors import UserError

_Stage = tuple[Sequence[Step], Sequence[Change]]
"""What is done to all images, first moves, then changes of values."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One draw of all augmentations, for any number of images, frames and key points that belong together."""

    resized: Size
    """The size after the first resize, before scale and crop."""
    size: Size
    """The size of everything that comes out."""
    is_flipped: bool
    stages: Sequence[_Stage]
    interpolation: int
    rng: random.Random | None = None
    """For what codecs change at random by themselves; None: nothing."""
    plans: dict[Any, list[tuple[Moves, Sequence[Change]]]] = field(default_factory=dict, init=False, repr=False)
    """What the stages come to for images of a size: worked out once for all that have it."""

    def apply(
        self,
        image: np.ndarray,
        extent: tuple[float, float] | None = None,
        *,
        is_nearest: bool = False,
        has_colors: bool = True,
    ) -> np.ndarray:
        """An image H x W x C -> the same, augmented, of `size`, contiguous.

        extent: height and width of what it shows, in its pixels, if that is not its shape (see warp.resize).
        is_nearest: take the nearest pixel where values must not be mixed. has_colors: change colors, too, of 8 bits.
        """
        rest = cv2.INTER_NEAREST if is_nearest else cv2.INTER_LINEAR
        resizes = (extent or image.shape[:2]) != self.resized
        first = self.interpolation if resizes and not is_nearest else rest  # else it would serve whatever comes next
        for moves, changes in self._plan(image.shape[:2], extent):
            image = moves(image, first, rest)
            first = rest
            for change in changes if has_colors else []:
                image = change(image)
        return image

    def _plan(self, size: Size, extent: tuple[float, float] | None) -> list[tuple[Moves, Sequence[Change]]]:
        if (size, extent) not in self.plans:
            begin = warp.resize(size, self.resized, extent)
            self.plans[size, extent] = [(Moves(steps), each) for steps, each in _merge([(begin, []), *self.stages])]
        return self.plans[size, extent]

    def move_points(self, points: np.ndarray, size: Size) -> np.ndarray:
        """Points ... x D, x and y first, in the pixels of an image of a stored size -> the same, float32.

        They move as the pixels do whose centers have whole numbers; those that leave the image are kept, and so is
        what else there is of each.
        """
        return warp.move_points(points, self._list_steps(size))

    def move_vectors(self, vectors: np.ndarray, size: Size) -> np.ndarray:
        """Differences of points ... x 2, x first, in the pixels of an image of a stored size -> the same, float32."""
        return warp.move_vectors(vectors, self._list_steps(size))

    def find_mirrored(self, size: Size) -> np.ndarray:
        """Which pixels of what comes out lie beyond a border, where the mirrored image is shown: H x W, bool."""
        return warp.find_mirrored(self._list_steps(size), self.size)

    def _list_steps(self, size: Size) -> list[Step]:
        return [*warp.resize(size, self.resized), *(step for steps, _ in self.stages for step in steps)]


class Augmenter:
    """The augmentations of one split, from the config's mapping (its order counts)."""

    def __init__(self, keys: Mapping[str, Any], interpolator: str = "INTER_LINEAR") -> None:
        """interpolator: an OpenCV name, for the first resize."""
        self.interpolation = _opencv_constant(interpolator)
        self.ops = [(name, _OPS[name](value)) for name, value in keys.items() if name in _OPS and value is not False]
        self.target_size = _first_resize(keys)
        self._arguments = (dict(keys), interpolator)

    def __reduce__(self) -> tuple[Any, ...]:
        return Augmenter, self._arguments  # its operations are closures, which cannot be sent to a spawned worker

    def draw(self, size: Size, rng: random.Random, *, is_training: bool = False) -> Drawn:
        """All that is random, for images of which `size` is the largest height and width (`largest`).

        is_training: codecs change their data at random, too, where they are told to. UserError if a crop is larger than
        the image.
        """
        rng.random()  # the sequence of draws keeps the gates of always-on operations
        rng.random()
        size = resized = self.target_size(size)
        stages, flipped = [], False
        for name, op in self.ops:
            gate = rng.random()
            steps, changes = op(size, gate, rng)
            stages.append((steps, changes))
            size = steps[-1].after if steps else size
            flipped ^= name == "horizontal_flip" and gate < 0.5
        return Drawn(
            resized=resized,
            size=size,
            is_flipped=flipped,
            stages=stages,
            interpolation=self.interpolation,
            rng=rng if is_training else None,
        )

    def compute_needed_size(self, size: Size) -> Size:
        """The size below which an image, stored at `size`, would lose what may be seen of it after augmentation."""
        keys = self._arguments[0]
        if "random_resize_h_w_aspect" in keys:
            return size  # the smaller its box, the more is seen of it
        height, width = self.target_size(size)
        scale = 1 + keys.get("random_scale_limit", 0)
        return math.ceil(height * scale), math.ceil(width * scale)


def find_largest_size(sizes: Collection[Size]) -> Size:
    """The largest height and the largest width."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def parse_h_w(text: str | int) -> Size:
    """ "h, w" or one number for both -> (h, w) in pixels."""
    numbers = [str(text)] * 2 if isinstance(text, int) else [part.strip() for part in text.split(",")]
    if len(numbers) != 2 or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise UserError(f"expected 'height, width' in pixels, got {text!r}")
    return int(numbers[0]), int(numbers[1])


def get_crop_size(keys: Mapping[str, Any]) -> Size | None:
    """The size of the last crop among the augmentations (it is the size of what comes out), or None."""
    crops = [parse_h_w(value) for name, value in keys.items() if name.endswith("crop_h_w")]
    return crops[-1] if crops else None


def get_output_size(keys: Mapping[str, Any]) -> Size | None:
    """The size of all augmented images, where it does not depend on the image."""
    if get_crop_size(keys) is not None:
        return get_crop_size(keys)
    if "random_resize_h_w_aspect" in keys:
        return _aspect_size(keys)
    return parse_h_w(keys["resize_h_w"]) if "resize_h_w" in keys and "random_scale_limit" not in keys else None


def _merge(stages: Sequence[_Stage]) -> list[tuple[list[Step], list[Change]]]:
    """The fewest stages that come to the same.

    Values that change pixel by pixel may do so after a move of whole pixels, and also after one that resamples if
    there is a resampling before it that it can be composed with.
    """
    merged: list[tuple[list[Step], list[Change]]] = [([], [])]
    for steps, changes in stages:
        before, waiting = merged[-1]
        waits = all(change.by_pixel for change in waiting) and (_resamples(before) or not _resamples(steps))
        if steps and waiting and not waits:
            merged.append(([], []))
        merged[-1][0].extend(steps)
        merged[-1][1].extend(changes)
    return merged


def _resamples(steps: Sequence[Step]) -> bool:
    return any(step.resample for step in steps)


def _first_resize(keys: Mapping[str, Any]) -> Callable[[Size], Size]:
    if "resize_h_w" in keys:
        fixed = parse_h_w(keys["resize_h_w"])
        return lambda size: fixed
    if "resize_smallest_side" in keys:
        smallest = parse_h_w(keys["resize_smallest_side"])
        return lambda size: _keep_aspect(size, smallest)
    if "random_resize_h_w_aspect" in keys:
        return lambda size: size  # that operation itself takes its crop from the whole image
    crop = get_crop_size(keys)
    if crop is None:
        raise UserError("augmentations need one of resize_smallest_side, resize_h_w, random_crop_h_w, center_crop_h_w")
    return lambda size: crop


def _keep_aspect(size: Size, smallest: Size) -> Size:
    height, width = size
    least_h, least_w = smallest
    if height * least_w <= width * least_h:
        return least_h, round(least_h * width / height)
    return round(least_w * height / width), least_w


_Op = Callable[[Size, float, random.Random], _Stage]
"""(size so far, the draw that decides whether the operation runs, source of its parameters) -> what is to be done."""


def _rotate(limit: float) -> _Op:
    return lambda size, gate, rng: (warp.turn(size, rng.uniform(-limit, limit)), [])


def _random_rotate_90(_: object) -> _Op:
    return lambda size, gate, rng: (warp.turn_quarters(size, rng.randint(0, 3)) if gate < 0.5 else [], [])


def _random_scale(limit: float) -> _Op:
    def draw(size: Size, gate: float, rng: random.Random) -> _Stage:
        scale = rng.uniform(1, 1 + limit)
        return warp.resize(size, (int(size[0] * scale), int(size[1] * scale))), []

    return draw


def _random_resize_aspect(text: str) -> _Op:
    """The largest box of a random aspect that fits into the image, at a random place, resized."""
    after = _aspect_size({"random_resize_h_w_aspect": text})
    try:
        smallest, largest = map(float, text.replace("(", " ").replace(")", " ").split(",")[2:])
    except ValueError:
        smallest = largest = 0.0
    if not 0 < smallest <= largest:
        raise UserError(
            f"expected 'h, w, (smallest aspect, largest aspect)', got {text!r}", where="random_resize_h_w_aspect"
        )
    low, high = math.log(smallest), math.log(largest)

    def draw(size: Size, gate: float, rng: random.Random) -> _Stage:
        aspect = math.exp(rng.uniform(low, high))
        top, left = rng.random(), rng.random()
        height, width = size
        box_w = min(width, round(height * aspect))
        box_h = min(height, round(box_w / aspect))
        y, x = int((height - box_h) * top), int((width - box_w) * left)
        return [*warp.crop(size, y, x, (box_h, box_w)), *warp.resize((box_h, box_w), after)], []

    return draw


def _aspect_size(keys: Mapping[str, Any]) -> Size:
    return parse_h_w(",".join(keys["random_resize_h_w_aspect"].split(",")[:2]))


def _random_crop(text: str) -> _Op:
    after = parse_h_w(text)

    def draw(size: Size, gate: float, rng: random.Random) -> _Stage:
        top, left = rng.random(), rng.random()
        return warp.crop(size, int((size[0] - after[0]) * top), int((size[1] - after[1]) * left), after), []

    return draw


def _center_crop(text: str) -> _Op:
    after = parse_h_w(text)
    return lambda size, gate, rng: (
        warp.crop(size, (size[0] - after[0]) // 2, (size[1] - after[1]) // 2, after),
        [],
    )


def _horizontal_flip(_: object) -> _Op:
    return lambda size, gate, rng: (warp.mirror(size) if gate < 0.5 else [], [])


def _of_values(prepare: Callable[[Mapping[str, Any]], color.Draw]) -> Callable[[Any], _Op]:
    def op(options: Mapping[str, Any]) -> _Op:
        draw = prepare(options)
        return lambda size, gate, rng: ([], [change] if (change := draw(gate, rng)) else [])

    return op


def _opencv_constant(name: str) -> int:
    names = [n for n in dir(cv2) if n.startswith("INTER_")]
    if name not in names:
        raise UserError(f"interpolator {name!r}: OpenCV has no such constant", advice="try INTER_LINEAR or INTER_AREA")
    return getattr(cv2, name)


_OPS: dict[str, Callable[[Any], _Op]] = {
    "rotate": _rotate,
    "random_rotate_90": _random_rotate_90,
    "random_scale_limit": _random_scale,
    "random_resize_h_w_aspect": _random_resize_aspect,
    "random_crop_h_w": _random_crop,
    "center_crop_h_w": _center_crop,
    "horizontal_flip": _horizontal_flip,
    "contrast": _of_values(color.contrast),
    "blur": _of_values(color.blur),
    "motion_blur": _of_values(color.motion_blur),
    "compression": _of_values(color.compression),
    "gamma": _of_values(color.gamma),
}
