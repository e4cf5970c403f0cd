"""One sample: its pictures as arrays, decoded and checked."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from imagier.data.source import Source
from imagier.errors import UserError

_JPEG = {"jpg", "jpeg"}
_JPEG_START = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class InputType:
    """What the config says of one input type."""

    name: str
    ext: str
    num_channels: int | None = None
    normalize: bool = False
    """Bring the picture from [0, 1] to [-1, 1]."""
    is_mask: bool = False
    """Values are names (of classes, of instances): never mix them."""
    num_classes: int | None = None
    """The values are classes below this, to be expanded into one channel each."""


Number = bool | int | tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """Pictures H x W x C by input type, as stored (uint8, uint16 or float32), and what else is known of them."""

    arrays: dict[str, np.ndarray]
    keys: dict[str, str]
    """The file of each picture, "sequence/name", by input type."""
    numbers: Mapping[str, Number] = field(default_factory=dict)
    """By the name that they get in a batch.

    Always `original_h_w_<type>`. Paired types: `is_flipped` and `original_h_w`, the largest height and width, since one
    augmentation serves them all. Others: `is_flipped_<type>` for each. Sets with classes: `labels` or `labels_<type>`,
    the number of the class.
    """


def random_source(seed: int, epoch: int, index: int) -> random.Random:
    """The source of all that is random in a sample: whatever worker or rank makes it, it is made alike."""
    return random.Random(int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0]))


def load(source: Source, kind: InputType, key: str, use_dont_care: bool) -> np.ndarray:
    """One picture H x W x C as stored, checked. UserError with the file's name if it is wrong."""
    where = source.where(kind.name, key)
    array = decode(source.read(kind.name, key), kind, source.extension(kind.name), where)
    check_classes(array, kind, use_dont_care, where)
    return array


def decode(data: bytes, kind: InputType, ext: str, where: str) -> np.ndarray:
    """The bytes of a file -> H x W x C, uint8, uint16 or float32 (TIFF), channels in the order red, green, blue, alpha.

    JPEG always gives three channels; a PNG with a palette gives its indices where one channel is asked for.
    UserError, with the file's name, if it is damaged or has another number of channels than the config says.
    What a file is, its first bytes tell: a JPEG that is called .png can be read.
    """
    if not data or _is_cut_off(data):
        raise UserError(f"{where}: the file is {'cut off' if data else 'empty'}; restore it or remove it from the set")
    if data.startswith(_PNG) and data[25:26] == b"\x03" and (kind.num_channels == 1 or kind.num_classes):
        array = _palette_indices(data, where)
    else:
        array = _decode_with_opencv(data, ext, where)
    array = array[..., None] if array.ndim == 2 else array
    channels = array.shape[2]
    if kind.num_channels is not None and channels != kind.num_channels:
        raise UserError(
            f"{where}: has {channels} channels, but input type {kind.name!r} says num_channels: {kind.num_channels}; "
            "convert the file or correct the config"
        )
    if array.dtype not in (np.uint8, np.uint16, np.float32):
        raise UserError(f"{where}: holds {array.dtype} values; convert it to 8 or 16 bits without sign, or to float32")
    return array


def check_classes(array: np.ndarray, kind: InputType, ignore: bool, where: str) -> None:
    """UserError, with the file's name, if a label map has several channels, or a class that the config does not know.

    255 always passes (it means "nothing" in 8-bit label maps), and so does everything if there is a class for the rest
    (`ignore`, the config's use_dont_care).
    """
    if kind.num_classes is None:
        return
    if array.shape[2] != 1:
        raise UserError(
            f"{where}: has {array.shape[2]} channels, but a map of the classes of one_hot_num_classes.{kind.name} has "
            "one; convert the file"
        )
    if ignore:
        return
    largest = int(array.max())
    if largest < kind.num_classes:
        return
    classes = np.unique(array)
    wrong = [int(value) for value in classes if value >= kind.num_classes and value != 255]
    if wrong:
        shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        raise UserError(
            f"{where}: holds class {shown}, but one_hot_num_classes.{kind.name} is {kind.num_classes} (classes 0 to "
            f"{kind.num_classes - 1}); correct the map or the number, or set use_dont_care: true"
        )


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end. Some decoders fill the missing part with grey and say nothing."""
    if data.startswith(_PNG):
        return data.rfind(b"IEND") < 0
    if not data.startswith(_JPEG_START):
        return False
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # a thumbnail in there has its own end
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.rfind(b"\xff\xd9", at) < 0  # from the back: it is nearly always there


def _palette_indices(data: bytes, where: str) -> np.ndarray:
    try:
        return np.asarray(Image.open(io.BytesIO(data)))
    except (OSError, SyntaxError) as error:  # Pillow raises either for damaged chunks
        raise UserError(f"{where}: damaged ({error}); restore it or remove it from the set") from error


def _decode_with_opencv(data: bytes, ext: str, where: str) -> np.ndarray:
    mode = cv2.IMREAD_COLOR if ext in _JPEG else cv2.IMREAD_UNCHANGED
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error as error:
        raise UserError(f"{where}: cannot be decoded ({error.err})") from error
    if array is None:
        raise UserError(f"{where}: not a picture, or damaged; restore it or remove it from the set")
    if array.ndim == 3 and array.shape[2] == 3:
        return cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
    if array.ndim == 3 and array.shape[2] == 4:
        return cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA)
    return array
