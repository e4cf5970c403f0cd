"""One sample: its images as arrays, decoded and checked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from imagier.data.augmentation.warp import Size
from imagier.data.decoding.decode import best_reduction, pixels
from imagier.data.decoding.header import Header, read_header
from imagier.data.decoding.points import decode_points
from imagier.data.sources.source import Source
from imagier.errors import UserError

_JPEG = {"jpg", "jpeg"}


@dataclass(frozen=True, kw_only=True)
class InputType:
    """What the config says of one input type."""

    name: str
    ext: str
    num_channels: int | None = None
    normalize: bool = False
    """Bring the image from [0, 1] to [-1, 1]."""
    is_mask: bool = False
    """Values are names (of classes, of instances): never mix them."""
    num_classes: int | None = None
    """The values are classes below this, to be expanded into one channel each."""
    dont_care: int | None = None
    """Values from this on mean nothing, and become this (the op move_dont_care)."""
    renamed: str | None = None
    """Its name in a batch, if that is another (the op rename_inputs)."""
    is_points: bool = False
    """Key points, which move as the pixels do; no image."""


Number = bool | int | tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """Images H x W x C by input type, as stored (uint8, uint16 or float32), key points P x D (float32), and facts."""

    arrays: dict[str, np.ndarray]
    keys: dict[str, str]
    """The file of each image, "sequence/name", by input type."""
    numbers: Mapping[str, Number] = field(default_factory=dict)
    """By the name that they get in a batch.

    Always `original_h_w_<type>`. Paired types: `is_flipped` and `original_h_w`, the largest height and width, since one
    augmentation serves them all. Others: `is_flipped_<type>` for each. Sets with classes: `labels` or `labels_<type>`,
    the number of the class.
    """


@dataclass(frozen=True)
class Stored:
    """A file of a sample, decoded."""

    array: np.ndarray
    size: Size
    """Of an image, stored: height and width, turned as EXIF says."""
    reduction: int = 1
    """The array has so much smaller sides, rounded up."""

    @property
    def extent(self) -> tuple[float, float] | None:
        """What the array shows of the image, in its own pixels; None: all of it."""
        return None if self.reduction == 1 else (self.size[0] / self.reduction, self.size[1] / self.reduction)


def random_source(seed: int, epoch: int, index: int) -> random.Random:
    """The source of all that is random in a sample: whatever worker or rank makes it, it is made alike."""
    return random.Random(int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0]))


def load(source: Source, kind: InputType, key: str, use_dont_care: bool) -> np.ndarray:
    """One file as stored, checked: an image H x W x C, or key points P x D. UserError with its name if it is wrong."""
    return load_stored(source, [kind], key, use_dont_care)[kind.name].array


def load_stored(
    source: Source,
    kinds: Sequence[InputType],
    key: str,
    use_dont_care: bool,
    needed: Callable[[Size], Size] | None = None,
) -> dict[str, Stored]:
    """The files of a sample by input type, as `load`.

    needed: given the largest stored height and width of the images, what size is enough of each. JPEGs are then
    decoded at 1/2, 1/4 or 1/8 of their sides where they stay as large.
    """
    files = [_File.read(source, kind, key) for kind in kinds]
    sizes = [file.header.size for file in files if file.header is not None]
    enough = None
    if needed is not None and sizes and len(sizes) == sum(not kind.is_points for kind in kinds):
        enough = needed((max(size[0] for size in sizes), max(size[1] for size in sizes)))
    return {file.kind.name: file.stored(enough, use_dont_care) for file in files}


def decode(data: bytes, kind: InputType, ext: str, where: str) -> np.ndarray:
    """The bytes of a file -> H x W x C, uint8, uint16 or float32 (TIFF, HDR), channels as red, green, blue, alpha.

    JPEG always gives three channels; a PNG with a palette gives its indices where one channel is asked for. All is
    turned as EXIF says. What a file is, its first bytes tell: a JPEG that is called .png can be read.
    UserError, with the file's name, if it is damaged or has another number of channels than the config says.
    """
    return _File.of(data, kind, ext, where).image()


@dataclass(frozen=True)
class _File:
    """A file of a sample, not decoded yet."""

    data: bytes
    kind: InputType
    ext: str
    where: str
    header: Header | None

    @classmethod
    def read(cls, source: Source, kind: InputType, key: str) -> _File:
        where = source.where(kind.name, key)
        return cls.of(source.read(kind.name, key), kind, source.extension(kind.name), where)

    @classmethod
    def of(cls, data: bytes, kind: InputType, ext: str, where: str) -> _File:
        return cls(data, kind, ext, where, None if kind.is_points else read_header(data, where))

    def stored(self, enough: Size | None, use_dont_care: bool) -> Stored:
        if self.kind.is_points:
            return Stored(decode_points(self.data, self.where), (0, 0))
        if enough is not None and self._is_photograph and self.header is not None:
            reduction = best_reduction(self.header, enough)
            return Stored(self.image(reduction), self.header.size, reduction)
        array = self.image()
        check_classes(array, self.kind, use_dont_care, self.where)
        return Stored(array, array.shape[:2])

    @property
    def _is_photograph(self) -> bool:
        return self.header is not None and self.header.is_jpeg and self.ext in _JPEG and not self.kind.is_mask

    def image(self, reduction: int = 1) -> np.ndarray:
        kind = self.kind
        names = kind.num_classes is not None
        color = self.ext in _JPEG or reduction > 1
        palette = kind.num_channels == 1 or names
        array = pixels(
            self.data, self.header, self.where, color=color, names=names, palette=palette, reduction=reduction
        )
        channels = array.shape[2]
        if kind.num_channels is not None and channels != kind.num_channels:
            raise UserError(
                f"has {channels} channels, but input type {kind.name!r} says num_channels: {kind.num_channels}",
                where=self.where,
                advice="convert the file or correct the config",
            )
        if array.dtype not in (np.uint8, np.uint16, np.float32):
            raise UserError(
                f"holds {array.dtype} values",
                where=self.where,
                advice="convert it to 8 or 16 bits without sign, or to float32",
            )
        check_value_range(array, kind, self.where)
        return array


def check_value_range(array: np.ndarray, kind: InputType, where: str) -> None:
    """UserError, with the file's name, if what is to be brought to [-1, 1] has no known range."""
    if array.dtype == np.uint16 and kind.normalize:
        raise UserError(
            f"holds 16-bit values, which are numbers and no light, but input type {kind.name!r} says normalize: true",
            where=where,
            advice="convert the file to 8 bits",
        )


def check_classes(array: np.ndarray, kind: InputType, ignore: bool, where: str) -> None:
    """UserError, with the file's name, if a label map has several channels, or a class that the config does not know.

    255 always passes (it means "nothing" in 8-bit label maps), and so does everything if there is a class for the rest
    (`ignore`, the config's use_dont_care; or move_dont_care).
    """
    if kind.num_classes is None:
        return
    if array.shape[2] != 1:
        raise UserError(
            f"has {array.shape[2]} channels, but a map of the classes of one_hot_num_classes.{kind.name} has one",
            where=where,
            advice="convert the file",
        )
    if array.dtype == np.float32:
        raise UserError(
            "holds fractions, but classes are whole numbers", where=where, advice="save the map with 8 or 16 bits"
        )
    if ignore or kind.dont_care is not None:
        return
    largest = int(array.max())
    if largest < kind.num_classes:
        return
    classes = np.unique(array)
    wrong = [int(value) for value in classes if value >= kind.num_classes and value != 255]
    if wrong:
        shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        raise UserError(
            (
                f"holds class {shown}, but one_hot_num_classes.{kind.name} is {kind.num_classes} (classes 0 to "
                f"{kind.num_classes - 1})"
            ),
            where=where,
            advice="correct the map or the number, or set use_dont_care: true",
        )
