"""One sample: its arrays, and how those of its files that belong together are read."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from imagier.data.augmentation.augment import Drawn
from imagier.data.augmentation.warp import Size
from imagier.data.codec import Codec, Stored
from imagier.data.decoding.decode import EncodedFile, choose_reduction
from imagier.data.sources.source import Source

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


def random_source(seed: int, epoch: int, index: int) -> random.Random:
    """The source of all that is random in a sample: the same in whatever worker or rank."""
    return random.Random(int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0]))


def load_stored(
    source: Source,
    codecs: Sequence[Codec],
    key: str,
    needed: Callable[[Size], Size] | None = None,
    person: int = 0,
) -> dict[str, Stored]:
    """The files of a sample, decoded and checked, by input type. UserError with the name of a file that is wrong.

    needed: given the largest stored height and width of the images, what size is enough of each. JPEGs are then
    decoded at 1/2, 1/4 or 1/8 of their sides if that leaves them as large. person: as of `EncodedFile`.
    """
    files = {codec.name: EncodedFile.read(source, codec.name, key) for codec in codecs}
    for file in files.values():
        file.person = person
    if needed is not None:
        _reduce(files, codecs, needed)
    return {codec.name: codec.load(files[codec.name]) for codec in codecs}


def _reduce(files: Mapping[str, EncodedFile], codecs: Sequence[Codec], needed: Callable[[Size], Size]) -> None:
    """Sets the reduction of JPEGs, if all images tell their sizes."""
    images = [files[codec.name] for codec in codecs if codec.has_pixels]
    if not images or any(file.header is None for file in images):
        return
    sizes = [file.size for file in images]
    enough = needed((max(height for height, _ in sizes), max(width for _, width in sizes)))
    for codec in codecs:
        file = files[codec.name]
        if codec.reduces_jpeg and file.is_jpeg and file.header is not None:
            file.reduction = choose_reduction(file.header, enough)


def image_sizes(stored: Mapping[str, Stored], codecs: Sequence[Codec]) -> dict[str, Size]:
    """Height and width of the images of a sample, by input type."""
    return {codec.name: stored[codec.name].size for codec in codecs if codec.has_pixels}


def augment(stored: Mapping[str, Stored], codecs: Sequence[Codec], drawn: Drawn) -> dict[str, np.ndarray]:
    """The arrays of a sample, all changed by one draw, by input type."""
    return {codec.name: codec.augment(stored[codec.name], drawn) for codec in codecs}
