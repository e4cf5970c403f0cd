"""From the `type` in a config to the class it names: the file name is the registry."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from typing_extensions import is_protocol

ROOMS = {"models": "imagier.models", "data": "imagier.data.datasets"}

CLASSES = {"gen": "Generator", "dis": "Discriminator", "trainer": "Recipe"}
"""The sections that name a class of a model, and which."""


def known(room: str, class_name: str) -> list[str]:
    """The names that a `type` can have: modules of a room that define the class."""
    package = importlib.import_module(ROOMS[room])
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [name for name in names if _defines(importlib.import_module(f"{ROOMS[room]}.{name}"), class_name)]


def find(room: str, name: str, class_name: str) -> type:
    """The class `class_name` in the module that `name` means: one of ours, or a dotted path of the user's.

    LookupError, with a sentence for the user, if there is none.
    """
    module_name = name if "." in name else f"{ROOMS[room]}.{name}"
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise _unknown(room, name, class_name)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise _unknown(room, name, class_name) from error
        raise LookupError(f"{module_name} needs the module {error.name!r}, which is not installed") from error
    if "." not in name and not _defines(module, class_name):
        raise _unknown(room, name, class_name)
    if class_name not in vars(module):
        raise LookupError(f"{module_name} has no class {class_name}")
    return getattr(module, class_name)


def dataset_class(name: str) -> Any:
    """The `Dataset` that a `type` of a data section means; a subclass of the abstract one.

    LookupError, with a sentence for the user, if there is none.
    """
    cls = find("data", name, "Dataset")
    base = importlib.import_module("imagier.data.dataset").Dataset
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise LookupError(f"{name}.Dataset is no subclass of imagier.data.dataset.Dataset")
    return cls


def known_dataset(name: str) -> Any:
    """The same, or None if there is none: for those who look at a type that another check refuses."""
    try:
        return dataset_class(name)
    except LookupError:
        return None


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """ "; did you mean 'spade'?", or a list of the choices if none is near."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(choices)}" if 0 < len(choices) <= 12 else ""


def _defines(module: ModuleType, class_name: str) -> bool:
    """Whether a module holds such a class of its own, not one that it imports, nor a description of one."""
    found = vars(module).get(class_name)
    return found is not None and found.__module__ == module.__name__ and not is_protocol(found)


def _unknown(room: str, name: str, class_name: str) -> LookupError:
    kind = {"models": "model", "data": "data set type"}[room]
    return LookupError(f"no {kind} {name!r}{did_you_mean(name, known(room, class_name))}")
