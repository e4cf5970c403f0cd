"""Data sets and codecs for tests, built in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from imagier.data.codec import Codec, InputType
from imagier.data.codecs import class_map, image, keypoints, mask
from imagier.data.dataset import Dataset, DatasetSpec
from imagier.data.decoding.decode import EncodedFile

T = TypeVar("T", bound=Dataset)

SHARED = {field.name for field in dataclasses.fields(DatasetSpec)}


def build(cls: type[T], sources: Sequence[Any], **options: Any) -> T:
    """A data set of these sources. options: fields of the spec, and keys of the data set's own."""
    shared = {name: value for name, value in options.items() if name in SHARED}
    own = {name: value for name, value in options.items() if name not in SHARED}
    return cls(DatasetSpec(sources=sources, **shared), **own)


def codec_for(*, is_mask: bool = False, is_points: bool = False, **options: Any) -> Codec:
    """A codec of the kind that follows from the keys of a config. options: fields of InputType."""
    kind = keypoints if is_points else class_map if options.get("num_classes") else mask if is_mask else image
    return kind.Codec(InputType(**options))


def load(codec: Codec, data: bytes, ext: str, where: str) -> np.ndarray:
    """The bytes of a file, decoded and checked."""
    return codec.load(EncodedFile(data, ext, where)).array
