"""Every key of a config: what it is for, its type, range, unit and default, and what reads it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imagier.config import schema
from imagier.config.check import DATA_FACTS
from imagier.config.constructor import constructor_model, hints_of
from imagier.config.descriptions import describe_fields, describe_options, split_unit
from imagier.config.find import Kind, find, find_or_none, list_types
from imagier.config.rules.method import check_optimizer
from imagier.config.type_words import inner_section, name_default, name_range, name_type

OPTIMIZER_SECTION = "PLAYER_opt"
"""Stands in paths for `gen_opt`, `dis_opt` and so on; as SPLIT does for train, val and test, NAME for any name, and N
for a place in a list."""


@dataclass(frozen=True)
class Key:
    """One key of a config, as some types read it."""

    path: tuple[str, ...]
    description: str
    unit: str
    """Of its number; empty for a count, a factor, or what is no number."""
    type: str
    range: str
    default: str
    """As in a config; empty if it has none, or is a section whose keys have theirs."""
    is_required: bool
    noun: str = ""
    """What the types are: "model"; empty if everything reads it."""
    readers: tuple[str, ...] = ()
    """The types that read it; empty if all do."""

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)


_READ_BY_DATASETS = {
    "data.keypoint_data_types": "reads_keypoints",
    "data.input_labels": "makes_label",
    "data.num_classes": "has_classes",
    "data.reduced_jpeg": "reads_reduced_jpeg",
    "data.SPLIT.root_weights": "reads_root_weights",
    "data.SPLIT.augmentations.max_time_step": "is_video",
}
"""Shared keys that only some data sets read: those with this attribute."""


def describe_keys(of_user: tuple[str, ...] = ()) -> list[Key]:
    """All keys, those of our own types and of torch's optimizers, section after section.

    A key that types of one section describe differently, or whose default differs, comes once for each meaning.
    of_user: dotted types of the user's, whose keys come, too.
    """
    return [key for section in list_sections() for key in describe_section(section, of_user)]


def list_sections() -> list[str]:
    """The sections of a config, `OPTIMIZER_SECTION` for all optimizers; and "" for the keys outside of sections."""
    players = dict.fromkeys(name for recipe in _classes(schema.RECIPE).values() for name in recipe.players)
    return ["", "trainer", *players, OPTIMIZER_SECTION, "data", "metrics", "inference_args"]


@functools.cache
def describe_section(section: str, of_user: tuple[str, ...] = ()) -> list[Key]:
    """The keys of one of `list_sections`."""
    if section == "":
        return [key for key in _walk(schema.Run, ()) if key.path[0] != "data" or len(key.path) == 1]
    if section == "trainer":
        players = [name for recipe in _classes(schema.RECIPE, of_user).values() for name in recipe.players]
        return _describe_types(schema.RECIPE, (section,), of_user, (*DATA_FACTS, *players))
    if section == OPTIMIZER_SECTION:
        schedules = _describe_types(schema.SCHEDULE, (section, "lr_policy"), of_user)
        return [*_describe_types(schema.OPTIMIZER, (section,), of_user, ("params",)), *schedules]
    if section == "data":
        return [
            *map(_complete_data_key, _walk(schema.Data, (section,))),
            *_describe_types(schema.DATASET, (section,), of_user, ("spec",)),
            *_describe_types(schema.CODEC, (section, "input_types", "N", "NAME"), of_user, ("input_type",)),
        ]
    if section == "metrics":
        return _describe_types(schema.METRIC, (section, "N"), of_user)
    if section == "inference_args":
        recipes = _classes(schema.RECIPE, of_user)
        return _group(schema.RECIPE, {name: _walk_options(cls.infer) for name, cls in recipes.items()})
    kind = schema.player(section)
    text = f"The model whose {kind.class_name} this is."
    return [_describe_type(kind, (section,), text), *_describe_types(kind, (section,), of_user, DATA_FACTS)]


def read_texts(model: Any) -> dict[str, str]:
    """The description of each key of a dataclass or a typed dictionary, with its unit.

    A key that is a section of its own, without a text, is as the first line of that section's docstring says.
    """
    texts = describe_fields(model)
    below = {name: inner_section(hint) for name, hint in hints_of(model).items() if name not in texts}
    return {
        **dict.fromkeys(hints_of(model), ""),
        **{name: _first_line(found[0]) for name, found in below.items() if found is not None},
        **texts,
    }


def _classes(kind: Kind, of_user: tuple[str, ...] = ()) -> dict[str, Any]:
    """The types of a kind that a config can name, with those of the user's that are of this kind."""
    found = {name: find(kind, name) for name in list_types(kind)}
    if kind is schema.OPTIMIZER:
        found = {name: cls for name, cls in found.items() if not any(check_optimizer(cls, name, "", {}, ()))}
    others = {name: find_or_none(kind, name) for name in of_user}
    return found | {name: cls for name, cls in others.items() if cls is not None}


def _describe_types(
    kind: Kind, path: tuple[str, ...], of_user: tuple[str, ...], facts: tuple[str, ...] = ()
) -> list[Key]:
    """The keys that the types of a kind have, in a section at this path. facts: as of `constructor_model`."""
    models = {name: constructor_model(cls, kind.beside, facts) for name, cls in _classes(kind, of_user).items()}
    keys = _group(kind, {name: _walk(model, path) for name, model in models.items()})
    if kind.beside is None:
        return keys
    by_name = {key.path[-1]: key for key in _walk(kind.beside, path) if len(key.path) == len(path) + 1}
    return [dataclasses.replace(by_name["type"], type=_name_types(kind)), *keys]


def _describe_type(kind: Kind, path: tuple[str, ...], text: str) -> Key:
    """The key `type` of a section whose kind has no other keys for all types."""
    return Key((*path, "type"), text, "", _name_types(kind), "", "", is_required=True)


def _name_types(kind: Kind) -> str:
    return f"one of {', '.join(_classes(kind))}, or a dotted path"


def _group(kind: Kind, by_type: Mapping[str, Iterator[Key]]) -> list[Key]:
    """The keys of several types; types that mean the same by a key are its readers together. Sections stay whole."""
    readers: dict[Key, list[str]] = {}
    for name, keys in by_type.items():
        for key in keys:
            readers.setdefault(key, []).append(name)
    first: dict[tuple[str, ...], int] = {}
    for number, key in enumerate(readers):
        for part in _parts_of(key.path):
            first.setdefault(part, number)
    return [
        dataclasses.replace(key, noun=kind.noun, readers=tuple(names)) if len(names) < len(by_type) else key
        for key, names in sorted(readers.items(), key=lambda item: [first[part] for part in _parts_of(item[0].path)])
    ]


def _parts_of(path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A path up to its first key, up to its second, and so on."""
    return [path[: depth + 1] for depth in range(len(path))]


def _walk(model: Any, path: tuple[str, ...], given: Any = None) -> Iterator[Key]:
    """The keys of a dataclass or a typed dictionary, and of the sections in it. given: the default of the section."""
    hints, texts = hints_of(model), read_texts(model)
    fields = {f.name: f for f in dataclasses.fields(model)} if dataclasses.is_dataclass(model) else {}
    for name, hint in hints.items():
        if hint == schema.Own:
            continue
        default = _default_of(fields.get(name), given)
        here = (*path, "SPLIT") if path == ("data",) and name in ("train", "val", "test") else (*path, name)
        if here[-1] == "SPLIT" and name != "train":
            continue
        below = inner_section(hint)
        is_required = default is dataclasses.MISSING if fields else name in model.__required_keys__
        yield _make_key(here, texts[name], hint, default, is_required)
        if below is not None and here not in _NOT_REPEATED:
            inner = default if type(default) is below[0] else None
            yield from _walk(below[0], (*here, *below[1]), inner)


_NOT_REPEATED = (("test_data",), ("data", "SPLIT", "input_types"))
"""Sections whose keys are those of another."""


def _walk_options(function: Any) -> Iterator[Key]:
    """The arguments of a recipe's `infer` that a config can give."""
    texts, hints = describe_options(function), inspect.get_annotations(function, eval_str=True)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name != "seed":  # it gets the run's
            name, default = parameter.name, parameter.default
            is_required = default is inspect.Parameter.empty
            yield _make_key(("inference_args", name), texts.get(name, ""), hints[name], default, is_required)


def _make_key(path: tuple[str, ...], text: str, hint: Any, default: Any, is_required: bool) -> Key:
    description, unit = split_unit(text)
    shown = "" if is_required or default is dataclasses.MISSING else name_default(default)
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, schema.Section)]
    if marks:
        type_ = "section" if typing.get_origin(hint.__origin__) is not list else "list of texts or sections"
    else:
        type_ = name_type(hint)
    return Key(path, description, unit, type_, name_range(hint), shown, is_required)


def _default_of(field: Any, given: Any) -> Any:
    if field is None:
        return dataclasses.MISSING
    if given is not None:
        return getattr(given, field.name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _first_line(section: Any) -> str:
    return (inspect.getdoc(section) or "").partition("\n")[0]


def _complete_data_key(key: Key) -> Key:
    """A key of all data sets, with those that read it, and with the types that it can name."""
    if key.name in _READ_BY_DATASETS:
        flag = _READ_BY_DATASETS[key.name]
        names = [name for name, cls in _classes(schema.DATASET).items() if getattr(cls, flag)]
        return dataclasses.replace(key, noun=schema.DATASET.noun, readers=tuple(names))
    return dataclasses.replace(key, type=_name_types(schema.DATASET)) if key.name == "data.type" else key
