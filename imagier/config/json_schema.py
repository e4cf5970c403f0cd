"""The schema of configs as JSON Schema: fixed sections, and one alternative for each type of a component."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from imagier.config import schema
from imagier.config.check import DATA_FACTS
from imagier.config.constructor import adapter, constructor_model
from imagier.config.describe import read_texts
from imagier.config.descriptions import split_unit
from imagier.config.find import Kind, find, list_types

_WEIGHTS = ("params",)
OWN_KEYS = {schema.DATASET: "spec", schema.CODEC: "input_type"}
"""Kinds whose keys stand beside those of a section, and the argument of their constructors that is that section."""


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that every valid config fits, once it is in our spelling.

    Of the user's own classes, which are named by a dotted path, it knows no keys. Types are in small letters.
    """
    recipes: dict[str, Any] = {name: find(schema.RECIPE, name) for name in list_types(schema.RECIPE)}
    players = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe.players))
    kinds = {"trainer": schema.RECIPE, **{name: schema.player(name) for name in players}}
    kinds |= {"optimizer": schema.OPTIMIZER, "schedule": schema.SCHEDULE, "metric": schema.METRIC}
    facts = {"trainer": (*DATA_FACTS, *players), **dict.fromkeys(players, DATA_FACTS), "optimizer": _WEIGHTS}
    adapters: dict[Any, TypeAdapter] = {"run": adapter(schema.Run)}
    for section, kind in kinds.items():
        for name in list_types(kind):
            model = constructor_model(find(kind, name), kind.beside, facts.get(section, ()))
            adapters[section, name] = adapter(model)
    for kind, fact in OWN_KEYS.items():
        for name in list_types(kind):
            adapters[kind.class_name, name] = adapter(constructor_model(find(kind, name), None, (fact,)))
    inputs: list[Any] = [(key, "validation", one) for key, one in adapters.items()]
    references, whole = TypeAdapter.json_schemas(inputs, schema_generator=_WithDescriptions)
    definitions = whole["$defs"]
    parts = {key: definitions.pop(references[key, "validation"]["$ref"].rpartition("/")[2]) for key in adapters}
    for section, kind in kinds.items():
        of_types = {key[1]: part for key, part in parts.items() if key[0] == section}
        definitions[section] = {"anyOf": [_OF_THE_USER, *_alternatives(kind, of_types)]}
    definitions["metric"]["anyOf"] += [{"enum": list_types(schema.METRIC)}, {"type": "string", "pattern": "\\."}]
    for kind, sections in ((schema.DATASET, ("Data", "Split")), (schema.CODEC, ("InputType",))):
        own = [part for key, part in parts.items() if key[0] == kind.class_name]
        _add_own_keys(definitions, sections, own)
    root = parts["run"]
    root["properties"]["metrics"]["items"] = {"$ref": "#/$defs/metric"}
    root["properties"]["trainer"] = {"$ref": "#/$defs/trainer", "description": "The method, and how it trains."}
    for name in players:
        root["properties"][name] = {"$ref": f"#/$defs/{name}", "description": f"The network of the player {name}."}
    return {
        **root,
        "patternProperties": {"_opt$": {"$ref": "#/$defs/optimizer", "description": "The optimizer of a player."}},
        "additionalProperties": _OF_THE_USER,
        "required": [*root["required"], "trainer"],
        "allOf": [_needs_sections_of(name, recipe.players) for name, recipe in recipes.items()],
        "title": "Imagier config",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": definitions,
    }


class _WithDescriptions(GenerateJsonSchema):
    """Describes each key, and gives the defaults that are made anew for each config."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> dict[str, Any]:
        made = super().dataclass_schema(schema)
        for f in dataclasses.fields(schema["cls"]):
            if f.name in made["properties"] and f.default_factory is not dataclasses.MISSING:
                made["properties"][f.name].setdefault("default", f.default_factory())
        return _describe(made, schema["cls"])

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> dict[str, Any]:
        return _describe(super().typed_dict_schema(schema), schema["cls"])


def _describe(section: dict[str, Any], model: Any) -> dict[str, Any]:
    """The schema of a section with the descriptions of its keys."""
    for name, text in read_texts(model).items():
        description, unit = split_unit(text)
        if name in section["properties"]:
            section["properties"][name]["description"] = f"{description} Unit: {unit}." if unit else description
    return section


def _add_own_keys(definitions: dict[str, Any], sections: Sequence[str], components: Sequence[dict[str, Any]]) -> None:
    """To sections the keys of all our components of a kind, which stand beside theirs, or those of any class."""
    own = {key: value for part in components for key, value in part.get("properties", {}).items()}
    for name in sections:
        section = definitions[name]
        section["properties"] = {**own, **section["properties"]}
        section["properties"]["type"] = {**section["properties"]["type"], "not": _DOTTED}
        definitions[name] = {"anyOf": [section, _OF_THE_USER]}


def _alternatives(kind: Kind, of_types: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The schema of a section for each of its types."""
    for name, part in of_types.items():
        part["properties"]["type"] = {"const": name, "description": f"Which {kind.noun}."}
        if name == kind.default_type:
            part["properties"]["type"]["default"] = name
        else:
            part["required"] = [*part.get("required", []), "type"]
        if kind is schema.OPTIMIZER:
            part["properties"]["lr_policy"] |= {"$ref": "#/$defs/schedule"}
    return list(of_types.values())


def _needs_sections_of(recipe: str, players: Sequence[str]) -> dict[str, Any]:
    """A config that names this recipe has a section for each of its players."""
    names_it = {"properties": {"trainer": {"properties": {"type": {"const": recipe}}}}}
    return {"if": names_it, "then": {"required": list(players)}}


_DOTTED: dict[str, Any] = {"type": "string", "pattern": "\\."}
_OF_THE_USER: dict[str, Any] = {
    "type": "object",
    "properties": {"type": {**_DOTTED, "description": "A class of your own, by its dotted path."}},
    "required": ["type"],
}
"""A section that names a class by its dotted path, and so has keys that only the class knows."""
