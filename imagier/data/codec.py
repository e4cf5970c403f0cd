"""The contract of a kind of input: `Codec` says how its files become arrays, and arrays tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from imagier.data.augmentation.augment import Drawn
from imagier.data.augmentation.warp import Part, Size
from imagier.data.decoding.decode import EncodedFile
from imagier.errors import UserError

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class InputType:
    """What the config says about an input type, whatever its kind."""

    name: str
    """In the config, in a sample, and of the folder of its files."""
    ext: str
    num_channels: int | None = None
    """Channels of its files; None: any."""
    normalize: bool = False
    """Bring values from [0, 1] to [-1, 1]."""
    num_classes: int | None = None
    """Values are classes below this, to be expanded into one channel each."""
    use_dont_care: bool = False
    """There is one more channel, for all other values."""
    dont_care: int | None = None
    """Values from this on become this (the op move_dont_care)."""
    background: tuple[int, int, int] | None = None
    """Red, green and blue from 0 to 255, on which images with alpha are laid where the config wants none."""
    renamed: str | None = None
    """Its name in a batch, if that is another (the op rename_inputs)."""


@dataclass(frozen=True)
class Stored:
    """A decoded file of a sample."""

    array: np.ndarray
    size: Size
    """Height and width of the stored image, upright. Of data without pixels, those of the image that they lie in."""
    reduction: int = 1
    """The array has sides that are so much smaller, rounded up."""

    @property
    def extent(self) -> tuple[float, float] | None:
        """Height and width of the image in the pixels of the array; None: those of the array."""
        return None if self.reduction == 1 else (self.size[0] / self.reduction, self.size[1] / self.reduction)


@dataclass(frozen=True)
class Remark:
    """Something about a file that does not end a training, but is probably not what was meant."""

    code: str
    what: str
    """Continues "3 of 20 files ..."."""
    advice: str


class Codec(ABC):
    """One kind of input (images, label maps, key points): the class that `type` names in an entry of `input_types`.

    A worker decodes, checks and augments; the device expands. Arrays with pixels are H x W x C of uint8, uint16 or
    float32; workers hand them over as stored, since these are much smaller than what networks see. Its own keys are
    keyword-only arguments of the constructor, after the input type; they stand beside `ext` and are checked against it.
    A file of your own, `my_lab/depth.py`, used as `- depth: {ext: png, type: my_lab.depth, max_m: 40}`:

        import cv2
        import numpy as np

        from imagier.data import codec
        from imagier.data.codec import InputType, stretch
        from imagier.errors import UserError

        class Codec(codec.Codec):
            '''Depth in millimeters, in PNGs of 16 bits. Networks see meters, N x 1 x H x W, cut at `max_m`.'''

            num_channels = 1

            def __init__(self, input_type: InputType, *, max_m: float = 80.0) -> None:
                super().__init__(input_type)
                self.max_m = max_m

            def decode(self, file):
                array = cv2.imdecode(np.frombuffer(file.data, np.uint8), cv2.IMREAD_UNCHANGED)
                if array is None or array.ndim != 2 or array.dtype != np.uint16:
                    raise UserError("not a gray image of 16 bits", where=file.where, code="damaged")
                return array[..., None]

            def augment(self, stored, drawn):
                return drawn.apply(stored.array, stored.extent, is_nearest=True)  # no depths between near and far

            def expand(self, stored):
                return (stored.movedim(-1, -3).float() / 1000).clamp(max=self.max_m)

            def to_rgb(self, array, canvas=None):
                return np.repeat(stretch(array), 3, axis=2)
    """

    can_normalize: ClassVar[bool] = True
    """`normalize` has a meaning; where it has none, it is refused."""
    has_pixels: ClassVar[bool] = True
    """Arrays are H x W x C and are resized, cropped and turned; otherwise they are data that lie in such an image."""
    is_drawn: ClassVar[bool] = False
    """Its files hold no pixels, but `augment` draws what they hold: an image like any other from there on."""
    num_channels: ClassVar[int | None] = None
    """Channels of its files, where the kind determines them; otherwise the config says."""
    holds_ids: ClassVar[bool] = False
    """Values are ids (of classes, of instances): between two of them there is nothing."""
    holds_classes: ClassVar[bool] = False
    """The ids are classes, of which `one_hot_num_classes` gives the number."""
    batch_parts: ClassVar[Mapping[str, int]] = {}
    """Where what `expand` gives becomes several tensors of a batch: what each adds to the name, and its channels."""
    leads_to_previous: ClassVar[bool] = False
    """Values are about the frame before, so clips must skip none."""
    reduces_jpeg: ClassVar[bool] = False
    """`decode` takes notice of `file.reduction`."""

    def __init__(self, input_type: InputType) -> None:
        if input_type.normalize and not self.can_normalize:
            what, where = "has no meaning for this type", f"data.input_types: {input_type.name}: normalize"
            raise UserError(what, where=where, advice="leave it out", code="no-effect")
        channels = self.num_channels
        self.input_type = input_type if channels is None else replace(input_type, num_channels=channels)
        self.name = input_type.name
        self.num_classes = input_type.num_classes

    @property
    def batch_name(self) -> str:
        """Its name in a batch."""
        return self.input_type.renamed or self.name

    @property
    def channels(self) -> int | None:
        """Channels of its tensor; None if only the files tell."""
        return self.input_type.num_channels

    @property
    def gives_pixels(self) -> bool:
        """Whether augmented arrays are images: H x W x C."""
        return self.has_pixels or self.is_drawn

    @abstractmethod
    def decode(self, file: EncodedFile) -> np.ndarray:
        """The array in a file, in whatever form. UserError, with `file.where`, if it is damaged.

        Frames of video files are decoded without it: uint8, or uint16 where they are gray and have more than 8 bits.
        """

    def check(self, array: np.ndarray, where: str) -> None:  # noqa: B027 - some have nothing to check
        """UserError if a decoded array is not what the config says. where: what to call its file."""

    @abstractmethod
    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """The array after the augmentation of its sample: H x W x C of `drawn.size` if it has pixels."""

    @abstractmethod
    def expand(self, stored: Tensor) -> Tensor:
        """On the device: stored values N x ... x H x W x C -> what networks see, float32 N x ... x `channels` x H x W.

        uint16 arrives as int32. Of data without pixels the shape is that of the arrays.
        """

    def write_label(self, stored: Tensor, part: Tensor) -> None:
        """Writes what `expand` gives into its part of the label, N x ... x `channels` x H x W, which is zero."""
        part.copy_(self.expand(stored))

    def find_present(self, stored: Tensor) -> Tensor:
        """Which channels of its part of the label may hold other values than 0, N x `channels`, bool.

        stored: as for `expand`, where it was read.
        """
        assert self.channels is not None
        return torch.ones(len(stored), self.channels, dtype=torch.bool)

    @abstractmethod
    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """A stored or augmented array for people to look at, H x W x 3, uint8.

        canvas: the image H x W x 3 that data without pixels lie in; it stays as it is.
        """

    def crop(self, array: np.ndarray, part: Part, size: Size) -> np.ndarray:
        """A part of an augmented array, resized to a size: linear, or the nearest pixel of what holds ids."""
        assert self.gives_pixels, "what lies in an image has a `crop` of its own"
        interpolation = cv2.INTER_NEAREST if self.holds_ids else cv2.INTER_LINEAR
        cut = np.ascontiguousarray(array[part.top : part.bottom, part.left : part.right])
        return cv2.resize(cut, size[::-1], interpolation=interpolation).reshape(*size, -1)

    def examine(self, array: np.ndarray) -> Sequence[Remark]:
        """What `imagier data check` should say about a stored array whose form is right."""
        return ()

    def load(self, file: EncodedFile) -> Stored:
        """A file decoded and checked. UserError with its name if it is wrong."""
        array = self.decode(file)
        self.check(array, file.where)
        if not self.has_pixels:
            return Stored(array, (0, 0))
        return Stored(array, array.shape[:2] if file.reduction == 1 else file.size, file.reduction)


def stretch(array: np.ndarray) -> np.ndarray:
    """Numbers of any range -> uint8, so that the smallest is black and the largest white."""
    values = np.nan_to_num(array.astype(np.float64), posinf=_LARGEST, neginf=-_LARGEST)
    low, high = values.min(), values.max()
    return ((values - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8)
