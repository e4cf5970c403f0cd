"""Whether two saved states are the same, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch


def find_first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The dotted name of the first leaf (tensor, number, text) in which two nested states differ; None if none does."""
    found, expected = dict(list_leaves(other)), dict(list_leaves(one))
    for name, value in expected.items():
        if name not in found or not _same(value, found[name]):
            return name
    return next((name for name in found if name not in expected), None)


def list_leaves(state: object, name: str = "") -> Iterator[tuple[str, object]]:
    """The leaves of nested mappings and lists, with their dotted names; None is not a leaf."""
    if isinstance(state, Mapping):
        for key, child in state.items():
            yield from list_leaves(child, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple):
        for index, child in enumerate(state):
            yield from list_leaves(child, f"{name}.{index}")
    elif state is not None:
        yield name, state


def _same(one: object, other: object) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return type(one) is type(other) and one == other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = [x.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for x in (one, other)]
    return torch.equal(*bits)  # NaN is the same as NaN, and 0 is not -0
