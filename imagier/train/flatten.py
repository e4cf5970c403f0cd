"""Nested mappings as one level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What stands in a tree, by its path: {"a": {"b": 1}} -> {"a.b": 1}. Empty mappings vanish."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten_tree(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
