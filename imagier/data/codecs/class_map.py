"""Maps of classes, which networks see as one channel per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from imagier.data import codec
from imagier.data.augmentation.augment import Drawn
from imagier.data.codec import InputType, Remark, Stored
from imagier.data.codecs.image import check_pixels, limit_values
from imagier.data.codecs.mask import NOTHING, brighten, examine_ids
from imagier.data.decoding.decode import EncodedFile, read_pixels
from imagier.errors import UserError
from imagier.nn.colorize import palette

NOTHING_COLOR, UNKNOWN_COLOR = (48, 48, 52), (255, 0, 255)
"""Of the value that stands for no class, and of classes that the config does not know."""

_VALUES = 65536


class Codec(codec.Codec):
    """Classes 0 to `num_classes` - 1 in one channel; 255 means none. With `use_dont_care` all others are one class."""

    num_channels = 1
    holds_ids = True
    holds_classes = True

    def __init__(self, input_type: InputType) -> None:
        """UserError if there is no number of classes."""
        super().__init__(input_type)
        if input_type.num_classes is None:
            raise UserError(
                "needs the number of classes",
                where=input_type.name,
                advice=f"add one_hot_num_classes.{input_type.name}",
                code="missing-key",
            )
        self.classes: int = input_type.num_classes

    @property
    def channels(self) -> int:
        """One for each class."""
        return self.classes + self.input_type.use_dont_care

    def decode(self, file: EncodedFile) -> np.ndarray:
        """H x W x C; of a palette the indices, of few bits the stored numbers."""
        return read_pixels(file, 1, holds_ids=True, has_raw_gray=True)

    def check(self, array: np.ndarray, where: str) -> None:
        """UserError if it has several channels, or holds a class that the config does not know.

        255 always passes, and so does everything if there is a class for the rest (use_dont_care or move_dont_care).
        """
        channels = array.shape[2]
        if channels != 1:
            raise UserError(
                f"has {channels} channels, but a map of the classes of one_hot_num_classes.{self.name} has one",
                where=where,
                advice="convert the file",
                code="wrong-channels",
            )
        if array.dtype == np.float32:
            raise UserError(
                "holds fractions, but classes are whole numbers",
                where=where,
                advice="save the map with 8 or 16 bits",
                code="wrong-dtype",
            )
        check_pixels(array, self.input_type, where)
        if not self._takes_all_values and int(array.max()) >= self.classes:
            self._check_classes(array, where)

    @property
    def _takes_all_values(self) -> bool:
        return self.input_type.use_dont_care or self.input_type.dont_care is not None

    def _check_classes(self, array: np.ndarray, where: str) -> None:
        wrong = [int(value) for value in np.unique(array) if value >= self.classes and value != NOTHING]
        if wrong:
            shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            raise UserError(
                f"holds class {shown}, but one_hot_num_classes.{self.name} is {self.classes} (classes 0 to "
                f"{self.classes - 1})",
                where=where,
                advice="correct the map or the number, or set use_dont_care: true",
                code="unknown-class",
            )

    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """Moved, with each pixel taken from one pixel."""
        return drawn.apply(stored.array, stored.extent, is_nearest=True, has_colors=False)

    def expand(self, stored: Tensor) -> Tensor:
        """One channel per class."""
        *around, height, width, _ = stored.shape
        maps = torch.zeros((*around, self.channels, height, width), device=stored.device)
        self.write_label(stored, maps)
        return maps

    def write_label(self, stored: Tensor, part: Tensor) -> None:
        """Writes ones into N x ... x K x H x W zeros, K = num_classes or one more.

        Unknown classes get the extra channel if there is one, and otherwise none at all.
        """
        classes = limit_values(stored, self.input_type).long().movedim(-1, -3)  # 8 bits compared with 256 overflow
        known = (classes < self.classes).float()
        if part.shape[-3] > self.classes:
            known.fill_(1)
        part.scatter_(-3, classes.clamp(max=part.shape[-3] - 1), known)

    def find_present(self, stored: Tensor) -> Tensor:
        """The classes that occur."""
        classes = limit_values(stored, self.input_type).int().clamp(max=self.classes).flatten(1)
        counts = torch.stack([each.bincount(minlength=self.classes + 1) for each in classes])
        return counts[:, : self.channels] > 0  # the last of the counts is that of unknown classes

    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """Each class in its color; what has several channels, and so is none, as it is."""
        if array.shape[2] != 1:
            return brighten(array)
        return class_colors(self.classes)[array[..., 0].astype(np.int64).clip(0, _VALUES - 1)]

    def examine(self, array: np.ndarray) -> Sequence[Remark]:
        """Whether classes were mixed."""
        return examine_ids(array)


def class_colors(num_classes: int) -> np.ndarray:
    """65536 x 3, uint8: the color of every value in a map of classes."""
    colors = np.full((_VALUES, 3), UNKNOWN_COLOR, np.uint8)
    colors[NOTHING] = NOTHING_COLOR
    colors[:num_classes] = palette(num_classes).numpy()
    return colors
