"""Batches on their way to the device before they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")

Arrived = Callable[[], dict[str, Tensor]]
"""Makes the device wait for the end of a copy; returns what was copied."""

Copier = Callable[[Mapping[str, Tensor]], Arrived]
"""Begins to copy tensors to a device, which goes on with its work meanwhile."""


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Each item when the next one has been taken too: so that something may have begun for it."""
    items = iter(items)
    for item in items:
        held = item
        break
    else:
        return
    for item in items:
        yield held
        held = item
    yield held
