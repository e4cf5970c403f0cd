"""Maps of ids (of instances, of parts), which are never mixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from imagier.data import codec
from imagier.data.augmentation.augment import Drawn
from imagier.data.codec import Remark, Stored, stretch
from imagier.data.codecs.image import as_rgb, check_pixels, scale_values
from imagier.data.decoding.decode import EncodedFile, read_pixels
from imagier.nn.colorize import palette

NOTHING = 255
"""The value that stands for nothing in 8-bit maps."""

MIXED_IDS = Remark(
    "mixed-ids",
    "with values in between at many of their edges, as smoothing and compression leave them",
    "draw maps without anti-aliasing, resize them by nearest neighbor, and never save them as JPEG",
)

_SHARE_OF_THIRDS, _LEAST_THIRDS = 0.15, 20


class Codec(codec.Codec):
    """Resized by nearest neighbor. Networks see 8-bit ids divided by 255, others as they are."""

    holds_ids = True

    def decode(self, file: EncodedFile) -> np.ndarray:
        """H x W x C, uint8, uint16 or float32."""
        return read_pixels(file, self.input_type.num_channels, holds_ids=True)

    def check(self, array: np.ndarray, where: str) -> None:
        """As of images."""
        check_pixels(array, self.input_type, where)

    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """Moved, with each pixel taken from one pixel."""
        return drawn.apply(stored.array, stored.extent, is_nearest=True, has_colors=False)

    def expand(self, stored: Tensor) -> Tensor:
        """As of images."""
        return scale_values(stored, self.input_type)

    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """Ids in colors; a map of two values, or of fractions, from black to white."""
        if array.shape[2] == 1 and array.dtype != np.float32 and len(np.unique(array)) > 2:
            return palette(256).numpy()[array[..., 0].astype(np.int64) % 256]
        return brighten(array)

    def examine(self, array: np.ndarray) -> Sequence[Remark]:
        """Whether ids were mixed."""
        return examine_ids(array)


def brighten(array: np.ndarray) -> np.ndarray:
    """H x W x C -> H x W x 3: 0 and 1 as black and white, and so any other range but that of 8 bits."""
    return as_rgb(stretch(array) if array.dtype != np.uint8 or array.max() < 2 else array)


def examine_ids(array: np.ndarray) -> Sequence[Remark]:
    """Whether a map H x W x C of ids was smoothed or compressed."""
    is_mixed = array.shape[2] == 1 and array.dtype != np.float32 and holds_mixtures(array[..., 0])
    return [MIXED_IDS] if is_mixed else []


def holds_mixtures(ids: np.ndarray) -> bool:
    """Whether a map H x W of ids (8 or 16 bits) has been smoothed or compressed somewhere on its way.

    Both put a third value between two areas. Of the places where the value left of a pixel is not the one right of it
    (or above and below), the pixel itself is another one in less than 5 of 100 in clean maps, even in small ones of
    many areas; in 20 to 80 after interpolation, blur or JPEG. (tests/data/codecs/test_mask.py)
    """
    changes = third = 0
    for rows in (ids, ids.T):
        before, here, after = rows[:, :-2], rows[:, 1:-1], rows[:, 2:]
        change = before != after
        changes += np.count_nonzero(change)
        # A line of the value for nothing may well be drawn between two areas.
        third += np.count_nonzero(change & (here != before) & (here != after) & (here != NOTHING))
    return third >= _LEAST_THIRDS and third > _SHARE_OF_THIRDS * changes
