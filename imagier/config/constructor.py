"""From a constructor to a dataclass of the keys that a config can give it, and the check of values against that."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter
from typing_extensions import is_typeddict

from imagier.config.descriptions import describe_arguments, describe_fields
from imagier.errors import UserError

_STRICT = ConfigDict(extra="forbid", strict=True)


@functools.cache
def adapter(model: type) -> TypeAdapter:
    """What checks values against a dataclass: unknown keys are errors, and no type is taken for another."""
    model.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]
    return TypeAdapter(model)


@functools.cache
def constructor_model(cls: type, beside: type | None, facts: tuple[str, ...] = ()) -> type:
    """A dataclass of the keys that a section can have: those of `beside`, and the arguments of a constructor.

    facts: arguments that a config cannot give. A key that is in both is as `beside` says.
    """
    fields: dict[str, tuple[str, Any, Any]] = {}
    if beside is not None:
        shared, texts = hints_of(beside), describe_fields(beside)
        for f in dataclasses.fields(beside):
            if f.name != "type":
                field = _field(f.default, f.default_factory, texts.get(f.name))
                fields[f.name] = (f.name, shared[f.name], field)
    hints, texts = constructor_hints(cls), describe_arguments(cls)
    for parameter in list_parameters(cls, facts):
        default = dataclasses.MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        hint = _reduce(hints.get(parameter.name, Any))
        if hint is float and type(default) is int:  # torch.optim has `dampening: float = 0`; a config's 0 becomes 0.0
            default = float(default)
        field = _field(default, text=texts.get(parameter.name))
        fields.setdefault(parameter.name, (parameter.name, hint, field))
    return dataclasses.make_dataclass(cls.__name__, list(fields.values()), kw_only=True, frozen=True)


@functools.cache
def hints_of(model: type) -> dict[str, Any]:
    """The types of the keys of a dataclass or of a typed dictionary."""
    return typing.get_type_hints(model, include_extras=True)


@functools.cache
def constructor_hints(cls: type) -> dict[str, Any]:
    """The types of the arguments of a constructor. UserError if one cannot be found when the program runs."""
    try:
        return typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    except NameError as error:
        what = f"{cls.__module__}.{cls.__qualname__}: the type {error.name!r} of an argument cannot be found"
        raise UserError(what, advice="import it outside of `if TYPE_CHECKING`", code="wrong-constructor") from error


def list_parameters(cls: type, facts: Sequence[str] = ()) -> list[inspect.Parameter]:
    """The arguments of a constructor that a config can give."""
    collects = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters.values()
    return [parameter for parameter in parameters if parameter.name not in facts and parameter.kind not in collects]


def list_options(function: Any) -> list[str] | None:
    """The keyword-only arguments of a function; None if it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]


def types_below(hints: Sequence[Any], key: str | int) -> Iterator[Any]:
    """The types that the value of a key, or an entry of a list, can have."""
    for option in (option for hint in hints for option in alternatives(hint)):
        if is_section(option):
            inside = hints_of(option)
            if key in inside:
                yield inside[str(key)]
        elif typing.get_origin(option) in (list, tuple, dict):
            yield typing.get_args(option)[-1]


def is_section(option: Any) -> bool:
    """Whether a type is one of mappings with known keys."""
    return dataclasses.is_dataclass(option) or is_typeddict(option)


def alternatives(hint: Any) -> Iterator[Any]:
    """The members of a union, or the type itself, without annotations."""
    if typing.get_origin(hint) is Annotated:
        yield from alternatives(typing.get_args(hint)[0])
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            yield from alternatives(option)
    else:
        yield hint


def _field(default: Any, factory: Any = dataclasses.MISSING, text: str | None = None) -> Any:
    metadata = {"description": text} if text else {}
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _reduce(hint: Any) -> Any:
    """The part of a type hint that YAML values can have: `float` of `float | Tensor`; Any where there is none."""
    if _is_checkable(hint):
        return hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kept = [_reduce(option) for option in arguments]
        kept = [option for option in kept if option is not Any]
        return functools.reduce(lambda a, b: a | b, kept) if kept else Any
    if origin in (list, tuple, dict):
        return origin[tuple(option if option is Ellipsis else _reduce(option) for option in arguments)]
    return Any


def _is_checkable(hint: Any) -> bool:
    try:
        TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return False
    return True
