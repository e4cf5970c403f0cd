"""A document against the schema: every key known, every type right, all errors at once."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from imagier.config import schema
from imagier.config.find import CLASSES, did_you_mean, find
from imagier.config.load import ConfigError, Document, KeyPath, dump
from imagier.config.rules import broken_rules, broken_rules_of_the_method

FACTS = ("label_channels", "label_lengths", "one_hot", "image_channels", "crop_h_w", "style_classes", "gen", "dis")
"""Arguments of constructors that a config cannot give: what only the data can know, and the networks of a recipe."""

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Component:
    """A class of a method and the keyword arguments that the config gives it."""

    type: str
    cls: Callable[..., Any]
    options: dict[str, Any]

    def build(self, **facts: Any) -> Any:
        """An object of the class; of `facts` it gets those that its constructor asks for."""
        wanted = inspect.signature(self.cls).parameters
        return self.cls(**{**self.options, **{name: value for name, value in facts.items() if name in wanted}})


@dataclass(frozen=True)
class Config:
    """A whole experiment, checked."""

    run: schema.Run
    trainer: schema.Trainer
    recipe: Component
    gen: Component
    dis: Component

    def resolved(self) -> dict[str, Any]:
        """The config with all defaults filled in, as a mapping that loads to the same config."""
        trainer = {**_plain(self.trainer), **_plain(self.recipe.options)}
        networks = {name: {"type": c.type, **_plain(c.options)} for name, c in (("gen", self.gen), ("dis", self.dis))}
        return {**_plain(self.run), "trainer": trainer, **networks}

    def dump(self) -> str:
        """`resolved` as YAML."""
        return dump(self.resolved())


def check(document: Document) -> Config:
    """The config that a document describes.

    ConfigError with all that is wrong with it; what is wrong between method and data is only told if nothing else is.
    """
    checker = _Checker(document, list(document.refused))
    run = checker.validated(schema.Run, (), {k: v for k, v in document.tree.items() if k not in CLASSES})
    gen = checker.component("gen")
    dis = checker.component("dis")
    recipe = checker.component("trainer", beside=schema.Trainer)
    if run is not None:
        for key_path, message in broken_rules(run):
            checker.error(key_path, message)
    if checker.errors:
        raise ConfigError(checker.lines())
    assert run is not None and gen is not None and dis is not None and recipe is not None
    required, is_video = vars(recipe.cls).get("required_inputs", ()), vars(recipe.cls).get("is_video", False)
    for key_path, message in broken_rules_of_the_method(
        run.data, recipe.type, required, is_video, {"gen": gen.options, "dis": dis.options}
    ):
        checker.error(key_path, message)
    checker.check_inference_args(run.inference_args, recipe.cls)
    if checker.errors:
        raise ConfigError(checker.lines())
    names = {f.name for f in dataclasses.fields(schema.Trainer)}
    shared = {name: value for name, value in recipe.options.items() if name in names}
    own = {name: value for name, value in recipe.options.items() if name not in names}
    return Config(
        run=run,
        trainer=schema.Trainer(type=recipe.type, **shared),
        recipe=Component(recipe.type, recipe.cls, own),
        gen=gen,
        dis=dis,
    )


@dataclass
class _Checker:
    """Collects errors, with the file and line of each."""

    document: Document
    errors: list[tuple[KeyPath, str]]

    def error(self, key_path: KeyPath, message: str) -> None:
        self.errors.append((key_path, message))

    def lines(self) -> list[str]:
        """The errors as "file:line: key: message", in the order of the file; those of the command line first."""
        lines: dict[str, int] = {}
        for key_path, message in self.errors:
            origin = self.document.origin(key_path)
            number = origin.rpartition(":")[2]
            key = f"{'.'.join(map(str, key_path))}: " if key_path else ""
            lines[f"{origin}: {key}{message}"] = int(number) if number.isdecimal() else 0
        return sorted(lines, key=lambda line: lines[line])

    def component(self, name: str, beside: type | None = None) -> Component | None:
        """Finds the class that a section names and checks the section against its constructor.

        beside: a dataclass whose keys may stand in the section too.
        """
        section = self.document.get((name,), {})
        if not isinstance(section, dict | None):
            self.error((name,), f"expected a section with a `type`, got {section!r}")
            return None
        options = dict(section or {})
        type_name = options.pop("type", None)
        if not isinstance(type_name, str):
            if name not in self.document.tree:
                self.error((name,), "missing section")
            elif type_name is None:
                self.error((name,), "missing key 'type' (which model?)")
            else:
                self.error((name, "type"), f"expected text, got {type_name!r}")
            return None
        try:
            cls = find("models", type_name, CLASSES[name])
        except LookupError as error:
            self.error((name, "type"), str(error.args[0]))
            return None
        for fact in sorted(set(FACTS) & options.keys() & inspect.signature(cls).parameters.keys()):
            self.error((name, fact), "comes from the data section; remove it here")
            options.pop(fact)
        model = constructor_model(cls, beside)
        checked = self.validated(model, (name,), options)
        if checked is None:
            return None
        return Component(type_name, cls, {f.name: getattr(checked, f.name) for f in dataclasses.fields(model)})

    def check_inference_args(self, given: Mapping[str, Any], recipe: Callable[..., Any]) -> None:
        """The keys must be keyword arguments of the recipe's `infer`."""
        infer = vars(recipe).get("infer")
        if infer is None:
            return
        parameters = inspect.signature(infer).parameters.values()
        known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            return
        for name in given.keys() - known:
            self.error(("inference_args", name), f"{recipe.__name__} has no such argument{did_you_mean(name, known)}")

    def validated(self, model: type, key_path: KeyPath, value: Any) -> Any:
        """`value` as an object of a dataclass; None, with the errors noted, if it does not fit."""
        ready = _json_ready(value, [model])
        try:
            return adapter(model).validate_json(json.dumps(ready))
        except ValidationError as error:
            for where, messages in _grouped(error, ready).items():
                self.error((*key_path, *where), _message(messages, where, model))
            return None


@functools.cache
def adapter(model: type) -> TypeAdapter:
    """What checks values against a dataclass: unknown keys are errors, and no type is taken for another."""
    model.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]
    return TypeAdapter(model)


@functools.cache
def constructor_model(cls: type, beside: type | None) -> type:
    """A dataclass whose fields are the keyword arguments of a constructor that a config can give."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    fields: list[Any] = []
    if beside is not None:
        shared = typing.get_type_hints(beside, include_extras=True)
        fields += [(f.name, shared[f.name], _field(f.default)) for f in dataclasses.fields(beside) if f.name != "type"]
    for name, parameter in inspect.signature(cls).parameters.items():
        if name not in FACTS and parameter.kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            default = dataclasses.MISSING if parameter.default is inspect.Parameter.empty else parameter.default
            fields.append((name, hints.get(name, Any), _field(default)))
    return dataclasses.make_dataclass(cls.__name__, fields, kw_only=True, frozen=True)


def _field(default: Any) -> Any:
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: copy.copy(default))
    return dataclasses.field(default=default)


def _json_ready(value: Any, hints: Sequence[Any]) -> Any:
    """A value as JSON can tell it, of a type that is one of `hints`.

    JSON makes no difference between 1 and 1.0, YAML does: a whole float may stand where an int is wanted. A section
    without keys is nothing in YAML.
    """
    if isinstance(value, Mapping):
        return {str(key): _json_ready(child, list(_below(hints, str(key)))) for key, child in value.items()}
    if isinstance(value, list):
        return [_json_ready(child, list(_below(hints, i))) for i, child in enumerate(value)]
    if value is None:
        options = [option for hint in hints for option in _alternatives(hint)]
        wants_section = any(_is_section(option) or typing.get_origin(option) is dict for option in options)
        return {} if wants_section and type(None) not in options else None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _grouped(error: ValidationError, value: Any) -> dict[KeyPath, list[dict[str, Any]]]:
    """pydantic's errors by the place in the file; its own markers (of unions, of wrappers) taken out of the place."""
    groups: dict[KeyPath, list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        key_path: KeyPath = ()
        node: Any = value
        for part in item["loc"]:
            inside = part in node if isinstance(node, dict) else isinstance(node, list) and isinstance(part, int)
            if inside:
                node = node[part]
                key_path = (*key_path, part)
            elif item["type"] in ("missing", "missing_argument") and part == item["loc"][-1]:
                key_path = (*key_path, part)
        groups.setdefault(key_path, []).append(dict(item))
    return groups


_EXPECTED = {
    "int_type": "int",
    "float_type": "number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section",
    "dataclass_type": "a section",
    "none_required": "nothing",
}


def _message(items: list[dict[str, Any]], key_path: KeyPath, model: type) -> str:
    first = items[0]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key{did_you_mean(str(key_path[-1]), _keys_at(model, key_path[:-1]))}"
    if first["type"] in ("missing", "missing_keyword_only_argument", "missing_argument"):
        return "missing section" if _keys_at(model, key_path) else "missing; it has no default"
    if first["type"] == "literal_error":
        choices = first["ctx"]["expected"]
        names = [choice.strip(" '") for choice in choices.replace(" or ", ",").split(",")]
        return f"expected {choices}, got {first['input']!r}{did_you_mean(str(first['input']), names)}"
    expected = [_EXPECTED[item["type"]] for item in items if item["type"] in _EXPECTED]
    if expected:
        return f"expected {' or '.join(dict.fromkeys(expected))}, got {first['input']!r}"
    message = first["msg"].replace("Input should", "must")
    return f"{message[0].lower()}{message[1:]}, got {first['input']!r}"


def _keys_at(model: type, key_path: KeyPath) -> list[str]:
    """The keys that the schema knows at a place."""
    hints: list[Any] = [model]
    for key in key_path:
        hints = list(_below(hints, key))
    options = [option for hint in hints for option in _alternatives(hint) if _is_section(option)]
    classes = CLASSES if model is schema.Run and not key_path else ()
    return [*classes, *(key for option in options for key in typing.get_type_hints(option))]


def _below(hints: Sequence[Any], key: str | int) -> Iterator[Any]:
    """The types that the value of a key, or an entry of a list, can have."""
    for option in (option for hint in hints for option in _alternatives(hint)):
        if _is_section(option):
            inside = typing.get_type_hints(option, include_extras=True)
            if key in inside:
                yield inside[str(key)]
        elif typing.get_origin(option) in (list, tuple, dict):
            yield typing.get_args(option)[-1]


def _is_section(option: Any) -> bool:
    return dataclasses.is_dataclass(option) or is_typeddict(option)


def _alternatives(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) is Annotated:
        yield from _alternatives(typing.get_args(hint)[0])
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            yield from _alternatives(option)
    else:
        yield hint


def _plain(value: Any) -> Any:
    """Dataclasses as mappings, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list | tuple) else value
