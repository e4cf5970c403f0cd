"""A YAML file as a tree that knows where each of its values stands."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from imagier.errors import UserError

Place = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


class ConfigError(UserError):
    """All that is wrong with a config, one line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


class Document:
    """The values of a config file with the overrides on top, and where each came from."""

    def __init__(self, name: str, tree: dict[str, Any], origins: dict[Place, str]) -> None:
        self.name = name
        self.tree = tree
        self.origins = origins

    def origin(self, place: Place) -> str:
        """ "file:line" of a value, or of the nearest mapping around it."""
        while place and place not in self.origins:
            place = place[:-1]
        return self.origins.get(place, self.name)

    def get(self, place: Place, default: Any = None) -> Any:
        """The value at a place, or the default if there is none."""
        node: Any = self.tree
        for key in place:
            inside = key in node if isinstance(node, dict) else isinstance(node, list) and int(key) < len(node)
            if not inside:
                return default
            node = node[key]
        return node

    def set(self, place: Place, value: Any, origin: str | None = None) -> None:
        """Puts a value at a place, with the mappings that lead there; the origin stays unless one is given."""
        node: Any = self.tree
        for depth, key in enumerate(place[:-1]):
            if isinstance(node, dict):
                node.setdefault(key, {})
            child: Any = node[key]
            if not isinstance(child, dict | list):
                dotted = ".".join(map(str, place[: depth + 1]))
                raise ConfigError([f"{origin}: {dotted}: is a value, not a section; cannot set {place[-1]!r} in it"])
            node = child
        node[place[-1]] = value
        if origin is not None:
            self.origins[place] = origin

    def drop(self, place: Place) -> Any:
        """Removes a value and returns it."""
        return self.get(place[:-1]).pop(place[-1])

    def walk(self) -> Iterator[tuple[Place, Any]]:
        """Every value that is no mapping and no list, with its place."""
        stack: list[tuple[Place, Any]] = [((), self.tree)]
        while stack:
            place, node = stack.pop()
            if isinstance(node, dict):
                stack += [((*place, key), child) for key, child in node.items()]
            elif isinstance(node, list):
                stack += [((*place, index), child) for index, child in enumerate(node)]
            else:
                yield place, node


def load(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Reads a config file and applies "section.key=value" overrides. ConfigError if either cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file (UTF-8)"
        raise ConfigError([f"{path}: cannot read the config: {reason}"]) from error
    tree, origins = _parse(text, str(path))
    document = Document(str(path), tree, origins)
    for override in overrides:
        _apply(document, override)
    return document


class _Loader(yaml.SafeLoader):
    """YAML 1.1 where 1e-4 is a number and 2021-01-01 is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
        |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
        re.X,
    ),
    list("-+0123456789."),
)


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[Place, str]]:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        origins: dict[Place, str] = {}
        if node is not None:
            _note_lines(loader, node, (), name, origins)
        tree = {} if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{name}:{line}: broken YAML: {error.problem or error.context}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{name}: broken YAML: {str(error).splitlines()[0]}"]) from error
    if not isinstance(tree, dict):
        raise ConfigError([f"{name}: a config is a mapping of sections (trainer:, gen:, data: ...), this is not"])
    return tree, origins


def _note_lines(loader: _Loader, node: yaml.Node, place: Place, name: str, origins: dict[Place, str]) -> None:
    """Notes the line of every value below a node; two equal keys in one mapping are an error."""
    origins.setdefault(place, f"{name}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _note_lines(loader, child, (*place, index), name, origins)
    if not isinstance(node, yaml.MappingNode):
        return
    own: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = key_node.value
        if key in own:
            message = f"the key {key!r} stands here for the second time"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=key_node.start_mark)
        own.add(key)
    loader.flatten_mapping(node)
    for key_node, child in node.value:
        here = (*place, key_node.value)
        origins[here] = f"{name}:{key_node.start_mark.line + 1}"
        _note_lines(loader, child, here, name, origins)


def _apply(document: Document, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ConfigError([f"command line: {override!r}: expected section.key=value"])
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError([f"command line: {dotted}: cannot read the value {text!r}"]) from error
    place: Place = tuple(int(key) if key.isdigit() else key for key in dotted.split("."))
    document.set(place, value, origin="command line")
