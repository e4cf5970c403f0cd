"""Data sets for tests, built in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from imagier.data.dataset import Dataset, DatasetSpec

T = TypeVar("T", bound=Dataset)

SHARED = {field.name for field in dataclasses.fields(DatasetSpec)}


def build(cls: type[T], sources: Sequence[Any], **options: Any) -> T:
    """A data set of these sources. options: fields of the spec, and keys of the data set's own."""
    shared = {name: value for name, value in options.items() if name in SHARED}
    own = {name: value for name, value in options.items() if name not in SHARED}
    return cls(DatasetSpec(sources=sources, **shared), **own)
