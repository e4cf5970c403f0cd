"""Imagier trains image generators.

`imagier.run` has the functions that train, generate and evaluate; `imagier.load_generator` opens what was trained.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagier import run
    from imagier.run import load_generator

__version__ = "0.2.0"
__all__ = ["__version__", "load_generator", "run"]


def __getattr__(name: str) -> Any:
    if name == "run":
        return importlib.import_module("imagier.run")
    if name == "load_generator":
        return importlib.import_module("imagier.run").load_generator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
