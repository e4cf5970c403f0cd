"""A YAML file as a tree that knows where each of its values stands."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from imagier.errors import UserError

KeyPath = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


class ConfigError(UserError):
    """All that is wrong with a config, one line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


class Document:
    """The values of a config file with the overrides on top, and where each came from."""

    def __init__(self, name: str, tree: dict[str, Any], origins: dict[KeyPath, str]) -> None:
        self.name = name
        self.tree = tree
        self.origins = origins
        self.refused: list[tuple[KeyPath, str]] = []
        """What was already found to be wrong: where, and what to do."""

    def origin(self, key_path: KeyPath) -> str:
        """ "file:line" of a value, or of the nearest mapping around it."""
        while key_path and key_path not in self.origins:
            key_path = key_path[:-1]
        return self.origins.get(key_path, self.name)

    def get(self, key_path: KeyPath, default: Any = None) -> Any:
        """The value at a place, or the default if there is none."""
        node: Any = self.tree
        for key in key_path:
            if not _has(node, key):
                return default
            node = node[key]
        return node

    def set(self, key_path: KeyPath, value: Any, origin: str | None = None) -> None:
        """Puts a value at a place, with the mappings that lead there; the origin stays unless one is given.

        ConfigError if the place leads through a value, or past the end of a list.
        """
        node: Any = self.tree
        for depth, key in enumerate(key_path):
            if not (isinstance(node, dict) or _has(node, key)):
                dotted = ".".join(map(str, key_path[:depth]))
                what = f"a list of {len(node)}" if isinstance(node, list) else "a value, not a section"
                raise ConfigError([f"{origin}: {dotted}: is {what}; cannot set {key!r} in it"])
            here = key_path[: depth + 1]
            is_new = here == key_path or self.get(here) is None
            if is_new:
                node[key] = value if here == key_path else {}
            if is_new and origin is not None:
                self.origins = {at: where for at, where in self.origins.items() if at[: depth + 1] != here}
                self.origins[here] = origin
            node = node[key]

    def drop(self, key_path: KeyPath) -> Any:
        """Removes a value and returns it."""
        return self.get(key_path[:-1]).pop(key_path[-1])

    def refuse(self, key_path: KeyPath, why: str) -> None:
        """Removes a value that cannot be, and keeps the reason for the list of all that is wrong."""
        self.drop(key_path)
        self.refused.append((key_path, why))

    def walk(self) -> Iterator[tuple[KeyPath, Any]]:
        """Every value that is no mapping and no list, with its place."""
        stack: list[tuple[KeyPath, Any]] = [((), self.tree)]
        while stack:
            key_path, node = stack.pop()
            if isinstance(node, dict):
                stack += [((*key_path, key), child) for key, child in node.items()]
            elif isinstance(node, list):
                stack += [((*key_path, index), child) for index, child in enumerate(node)]
            else:
                yield key_path, node


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


def load_mapping(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> Document:
    """A config that was written in Python, as `load` would read it from a file."""
    try:
        text = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False)
    except yaml.representer.RepresenterError as error:
        raise UserError(
            f"holds {error.args[-1]!r}, which no YAML file could", where="config", code="not-yaml"
        ) from error
    document = Document("config", _parse(text, "config")[0], {})
    for override in overrides:
        _apply(document, override)
    return document


def dump(tree: dict[str, Any]) -> str:
    """A tree as YAML that `load` reads back as it was."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 where 1e-4 is a number and 2021-01-01 is text, without the types that no config needs."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or not tag.endswith((":binary", ":timestamp", ":set", ":omap", ":pairs"))
    }


class _Dumper(yaml.SafeDumper):
    """Puts text that `_Loader` would take for a number into quotes."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        origins: dict[KeyPath, str] = {(): f"{name}:1"}
        if node is not None:
            _note_lines(loader, node, (), name, origins, set())
        tree = {} if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError([f"{name}:{line}: broken YAML: {problem}"]) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a tag that does not fit, such as !!int x
        raise ConfigError([f"{name}: broken YAML: {str(error).splitlines()[0]}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{name}: broken YAML: a section contains itself, or is nested too deeply"]) from error
    if not isinstance(tree, dict):
        raise ConfigError([f"{name}: a config is a mapping of sections (trainer:, gen:, data: ...), this is not"])
    return tree, origins


def _note_lines(
    loader: _Loader, node: yaml.Node, key_path: KeyPath, name: str, origins: dict[KeyPath, str], seen: set[yaml.Node]
) -> None:
    """Notes the line of every value below a node; two equal keys in one mapping are an error.

    seen: the mappings that an alias may bring again, with what they merge written out, where keys may stand twice.
    """
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            here: KeyPath = (*key_path, index)
            origins[here] = f"{name}:{child.start_mark.line + 1}"
            _note_lines(loader, child, here, name, origins, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    if node not in seen:
        _check_keys(node)
        seen.add(node)
        loader.flatten_mapping(node)
    for key_node, child in node.value:  # merged keys first: those of the mapping itself replace their lines
        here = (*key_path, key_node.value)
        origins[here] = f"{name}:{key_node.start_mark.line + 1}"
        _note_lines(loader, child, here, name, origins, seen)


def _check_keys(node: yaml.MappingNode) -> None:
    own: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = key_node.value
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key_node.start_mark)
        if key in own:
            message = f"the key {key!r} stands here for the second time"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=key_node.start_mark)
        own.add(key)


def _apply(document: Document, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ConfigError([f"command line: {override!r}: expected section.key=value"])
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError([f"command line: {dotted}: cannot read the value {text!r}"]) from error
    key_path: KeyPath = ()
    for key in dotted.split("."):
        inside_list = isinstance(document.get(key_path), list) and key.isdecimal()
        key_path = (*key_path, int(key) if inside_list else key)
    document.set(key_path, value, origin="command line")


def _has(node: Any, key: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(key, int) and key < len(node)
    return isinstance(node, dict) and key in node
