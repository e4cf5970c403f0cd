"""Marks of cases of a parametrized test."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mark_slow(names: Iterable[str], but: Collection[str]) -> list[Any]:
    """Cases of which only some run by default; `make test-all` runs all."""
    return [name if name in but else pytest.param(name, marks=pytest.mark.slow) for name in names]
