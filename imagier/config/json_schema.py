"""The schema of configs as JSON Schema: fixed sections, and one alternative per model for its networks and recipe."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from imagier.config import schema
from imagier.config.check import adapter, constructor_model
from imagier.config.find import CLASSES, find, known


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that every valid config fits, once it is in our spelling."""
    adapters: dict[Any, TypeAdapter] = {"run": adapter(schema.Run)}
    for section, class_name in CLASSES.items():
        beside = schema.Trainer if section == "trainer" else None
        for name in known("models", class_name):
            adapters[section, name] = adapter(constructor_model(find("models", name, class_name), beside))
    references, whole = TypeAdapter.json_schemas([(key, "validation", one) for key, one in adapters.items()])
    definitions = whole["$defs"]

    def taken_out(key: Any) -> dict[str, Any]:
        return definitions.pop(references[key, "validation"]["$ref"].rpartition("/")[2])

    root = taken_out("run")
    for section in CLASSES:
        alternatives = [_OF_THE_USER]
        for key in adapters:
            if key[0] == section:
                part = taken_out(key)
                part["properties"]["type"] = {"const": key[1]}
                part["required"] = [*part.get("required", []), "type"]
                alternatives.append(part)
        root["properties"][section] = {"oneOf": alternatives}
    return {
        **root,
        "required": [*root["required"], *CLASSES],
        "title": "Imagier config",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": definitions,
    }


_OF_THE_USER: dict[str, Any] = {
    "type": "object",
    "properties": {"type": {"type": "string", "pattern": "\\."}},
    "required": ["type"],
}
"""A section that names a class by its dotted path, and so has keys that only the class knows."""
