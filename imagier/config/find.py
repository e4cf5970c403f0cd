"""From the `type` in a config to the class it names: the file name is the registry."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from typing_extensions import is_protocol

from imagier.config.constructor import constructor_hints
from imagier.errors import UserError
from imagier.user_code import import_user_module

ROOMS: dict[str, tuple[str, ...]] = {
    "models": ("imagier.models",),
    "data": ("imagier.data.datasets",),
    "codecs": ("imagier.data.codecs",),
    "optimizers": ("imagier.train.optim", "torch.optim"),
    "schedules": ("imagier.train.schedule",),
    "metrics": ("imagier.metrics",),
}
"""The packages and modules in which the types of a room are looked up, in this order."""


@dataclass(frozen=True)
class Kind:
    """One kind of component that a section of a config can name by its `type`.

    A type is the name of a module in one of the room's packages, whose class `class_name` is meant; or, where a place
    itself holds a class of that name, one of its subclasses, by its name in any case. A dotted type is a module or a
    class of the user's.
    """

    noun: str
    """What messages call it: "model"."""
    class_name: str
    """What its class is called in a module of its own."""
    room: str
    """Where its types are: a key of `ROOMS`."""
    base: str = ""
    """What its class must inherit, as "module:Class"; empty for anything."""
    beside: type | None = None
    """A dataclass of the keys that all types have. The default of its `type`, if any, is that of an empty section."""
    tuples: tuple[str, ...] = ()
    """Attributes of its class that are tuples of names."""

    @property
    def default_type(self) -> str | None:
        """The type of a section that names none."""
        fields = () if self.beside is None else dataclasses.fields(self.beside)
        return next((f.default for f in fields if f.name == "type" and f.default is not dataclasses.MISSING), None)


def list_types(kind: Kind) -> list[str]:
    """The names that a `type` of this kind can have, those of the user's modules aside."""
    names: list[str] = []
    for place in map(importlib.import_module, ROOMS[kind.room]):
        if kind.class_name in vars(place):
            names += _find_subclasses(place, kind.class_name)
        else:
            modules = [module.name for module in pkgutil.iter_modules(place.__path__)]
            names += [name for name in modules if _defines(_import_from(place, name), kind.class_name)]
    return list(dict.fromkeys(names))


def find(kind: Kind, name: str) -> Any:
    """The class that a `type` means: one of ours, or one of the user's by a dotted path.

    The path is that of a module with a class `kind.class_name`, or of a class of any name. UserError if there is none,
    if its module cannot be imported, if it is not what the kind asks for or lacks a method that this must have, or if a
    type in its constructor cannot be found.
    """
    found = _find_by_name(kind, name) if "." not in name else _find_by_path(kind, name)
    if found is None:
        what = f"no {kind.noun} {name!r}"
        advice = did_you_mean(name, list_types(kind))
        if "." in name and all(part.isidentifier() for part in name.split(".")):
            advice = "no module or class of this name can be imported; is its folder on the Python path?"
        raise UserError(what, advice=advice, code="unknown-type")
    if kind.base:
        module_name, _, base_name = kind.base.partition(":")
        base = vars(importlib.import_module(module_name))[base_name]
        if not (isinstance(found, type) and issubclass(found, base)):
            what = f"{name} is no {kind.noun}"
            raise UserError(what, advice=f"its class must inherit from {module_name}.{base_name}", code="wrong-class")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise UserError(f"{name} lacks {', '.join(missing)}", advice="define what is missing", code="abstract-class")
    for attribute in kind.tuples:
        value = getattr(found, attribute, ())
        if isinstance(value, str):  # as ("images") is: its letters would be taken for names
            what = f"{found.__module__}.{found.__qualname__}.{attribute} is a text, not a tuple"
            raise UserError(what, advice=f'write ("{value}",)', code="text-for-tuple")
    constructor_hints(found)
    return found


def find_or_none(kind: Kind, type_: Any) -> Any:
    """The class of a type, or None if there is none, which `check` reports."""
    if not isinstance(type_, str):
        return None
    try:
        return find(kind, type_)
    except UserError:
        return None


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """ "did you mean 'spade'?", or a list of the choices if none is near, or nothing if there are many."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(choices)}" if 0 < len(choices) <= 12 else ""


def _find_by_name(kind: Kind, name: str) -> Any:
    """The class of one of our types, or None."""
    for place in map(importlib.import_module, ROOMS[kind.room]):
        if kind.class_name in vars(place):
            found = _find_subclasses(place, kind.class_name).get(name.lower())
            if found is not None:
                return found
        elif name in [module.name for module in pkgutil.iter_modules(place.__path__)]:
            module = _import_from(place, name)
            if _defines(module, kind.class_name):
                return vars(module)[kind.class_name]
    return None


def _find_by_path(kind: Kind, path: str) -> Any:
    """The class of a user's dotted path, or None. UserError if a module on the way needs one that is not installed."""
    if not all(part.isidentifier() for part in path.split(".")):
        return None
    module = import_user_module(path)
    if module is not None:
        if kind.class_name not in vars(module):
            raise UserError(f"{path} has no class {kind.class_name}", code="unknown-type")
        return vars(module)[kind.class_name]
    parent, _, last = path.rpartition(".")
    module = import_user_module(parent)
    return None if module is None else vars(module).get(last)


def _import_from(package: ModuleType, name: str) -> ModuleType:
    return importlib.import_module(f"{package.__name__}.{name}")


def _defines(module: ModuleType, class_name: str) -> bool:
    """Whether a module holds such a class of its own: not one that it imports, nor an abstract one or a protocol."""
    found: Any = vars(module).get(class_name)
    is_own = found is not None and found.__module__ == module.__name__
    return is_own and not inspect.isabstract(found) and not is_protocol(found)


def _find_subclasses(module: ModuleType, class_name: str) -> dict[str, type]:
    """The public classes of a module that inherit from its class `class_name`, by their names in small letters."""
    base = vars(module)[class_name]
    return {
        name.lower(): item
        for name, item in vars(module).items()
        if inspect.isclass(item) and issubclass(item, base) and item is not base and not name.startswith("_")
    }
