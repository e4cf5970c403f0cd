"""A YAML file as a tree that knows the file and line of each of its values."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml

from imagier.errors import UserError, suggest_sibling

KeyPath = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


class Mistake(NamedTuple):
    """Something wrong with a config: where, what, what to do about it, and the kind of the mistake."""

    key_path: KeyPath
    what: str
    advice: str = ""
    code: str = "broken-rule"


class ConfigError(UserError):
    """All that is wrong with a config: a UserError for each mistake, and a line for each in the text.

    The `where` of each is "file:line", or "command line", followed by ": " and the dotted key if there is one.
    """

    def __init__(self, errors: Sequence[UserError]) -> None:
        super().__init__("\n".join(map(str, errors)), code="config")
        self.errors = list(errors)


class Document:
    """The values of a config file with the overrides on top, and where each came from."""

    def __init__(self, name: str, tree: dict[str, Any], origins: dict[KeyPath, str]) -> None:
        self.name = name
        self.tree = tree
        self.origins = origins
        self.refused: list[Mistake] = []
        """What was found to be wrong before the check."""

    def origin(self, key_path: KeyPath) -> str:
        """ "file:line" of a value, or of the nearest mapping around it."""
        while key_path and key_path not in self.origins:
            key_path = key_path[:-1]
        return self.origins.get(key_path, self.name)

    def get(self, key_path: KeyPath, default: Any = None) -> Any:
        """The value at a place, or the default if nothing is there."""
        node: Any = self.tree
        for key in key_path:
            if not _has(node, key):
                return default
            node = node[key]
        return node

    def has(self, key_path: KeyPath) -> bool:
        """Whether a section has a key, whatever its value."""
        section = self.get(key_path[:-1])
        return isinstance(section, dict) and key_path[-1] in section

    def set(self, key_path: KeyPath, value: Any, origin: str | None = None) -> None:
        """Sets a value, with the mappings that lead to it; its origin stays unless one is given.

        ConfigError if the place leads through a value, or past the end of a list.
        """
        node: Any = self.tree
        for depth, key in enumerate(key_path):
            if not (isinstance(node, dict) or _has(node, key)):
                where = f"{origin}: {join_keys(key_path[:depth])}"
                what = f"is a list of {len(node)}" if isinstance(node, list) else "is a value, not a section"
                raise _error(what, where=where, advice=f"cannot set {key!r} in it", code="not-a-section")
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

    def refuse(self, key_path: KeyPath, what: str, advice: str = "", code: str = "not-supported") -> None:
        """Removes a value that cannot be honored, and keeps the reason for the list of all mistakes."""
        self.drop(key_path)
        self.refused.append(Mistake(key_path, what, advice, code))

    def walk(self) -> Iterator[tuple[KeyPath, Any]]:
        """Every value that is neither a mapping nor a list, with its place."""
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
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file (UTF-8)"
        advice = suggest_sibling(Path(path)) if isinstance(error, FileNotFoundError) else ""
        raise _error(
            f"cannot read the config: {reason}", where=path, advice=advice, code="unreadable-config"
        ) from error
    return load_text(text, str(path), overrides)


def load_text(text: str, name: str, overrides: Sequence[str] = ()) -> Document:
    """What `load` returns, of the text of a file that is called so. ConfigError if it cannot be read."""
    tree, origins = _parse(text, name)
    document = Document(name, tree, origins)
    for override in overrides:
        _apply(document, override)
    return document


def load_mapping(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> Document:
    """A config that was written in Python, as `load` would read it from a file."""
    try:
        text = yaml.dump(dict(tree), Dumper=_PythonDumper, sort_keys=False)
    except yaml.representer.RepresenterError as error:
        raise UserError(
            f"holds {error.args[-1]!r}, which no YAML file could", where="config", code="not-yaml"
        ) from error
    document = Document("config", _parse(text, "config")[0], {})
    for override in overrides:
        _apply(document, override)
    return document


def join_keys(key_path: KeyPath) -> str:
    """A place as people write it: "gen_opt.lr_policy.gamma"."""
    return ".".join(map(str, key_path))


def dump(tree: dict[str, Any]) -> str:
    """A tree as YAML that `load` reads back as it was."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def dump_inline(value: Any) -> str:
    """A value as YAML, in one line."""
    options: dict[str, Any] = {"default_flow_style": True, "sort_keys": False, "allow_unicode": True, "width": 10**6}
    return yaml.dump(value, Dumper=_PythonDumper, **options).removesuffix("\n").removesuffix("\n...")


_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)


LARGEST_INT = 2**63 - 1
"""Of what tensors can hold."""

MOST_VALUES = 100_000
"""Of a config, each counted as often as aliases repeat it."""


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


def _construct_scalar(tag: str, expected: str) -> None:
    """Lets the loader say where a value stands that is none of its tag, such as `!!int many`."""
    construct = _Loader.yaml_constructors[tag]

    def construct_or_refuse(loader: _Loader, node: yaml.Node) -> Any:
        text = node.value if isinstance(node, yaml.ScalarNode) else "a section or a list"
        shown = repr(text if len(text) <= 40 else f"{text[:40]}...")
        if tag.endswith(":int") and _OCTAL.fullmatch(text):
            problem = f"{shown} is {int(text, 8)} in YAML: write the number without a zero in front, or in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        try:
            value = construct(loader, node)
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            problem = f"{shown} is not {expected}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            raise yaml.MarkedYAMLError(problem=f"{shown} is too large a number", problem_mark=node.start_mark)
        return value

    _Loader.add_constructor(tag, construct_or_refuse)


_OCTAL = re.compile(r"[-+]?0[0-7_]+")

for _tag, _expected in (("bool", "true or false"), ("int", "a whole number"), ("float", "a number")):
    _construct_scalar(f"tag:yaml.org,2002:{_tag}", _expected)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader`, or another reader of YAML 1.1 or 1.2, would read as a number or as a boolean."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^0o[0-7]+$"), ["0"])
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))


class _PythonDumper(_Dumper):
    """Also writes what Python programs hold instead of plain values: paths, and mappings of other classes than dict."""


_PythonDumper.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))
_PythonDumper.add_multi_representer(dict, lambda dumper, mapping: dumper.represent_dict(dict(mapping)))

for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    try:
        tree, origins = _compose(text, name)
    except yaml.YAMLError as error:
        line, problem = _explain(error, text)
        raise _error(f"broken YAML: {problem}", where=f"{name}:{line}", code="broken-yaml") from error
    if not isinstance(tree, dict):
        what = "a config is a mapping of sections (trainer:, gen:, data: ...), this is not"
        raise _error(what, where=name, code="broken-yaml")
    return tree, origins


def _compose(text: str, name: str) -> tuple[Any, dict[KeyPath, str]]:
    """The value of a YAML text, and the line of every value in it. YAMLError if it has none."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        origins: dict[KeyPath, str] = {(): f"{name}:1"}
        if node is None:
            return {}, origins
        _note_lines(loader, node, (), name, origins, set())
        return _copy(loader.construct_document(node)), origins
    except RecursionError:
        what = "a section contains itself, or is nested too deeply"
        raise yaml.MarkedYAMLError(problem=what) from None


def _copy(value: Any) -> Any:
    """A value in which no section is in two places, as an alias brings it: a change there would be one here, too."""
    if isinstance(value, dict):
        return {key: _copy(child) for key, child in value.items()}
    return [_copy(child) for child in value] if isinstance(value, list) else value


def _explain(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line of an error, from 1, and what is wrong there."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        return 1 if mark is None else mark.line + 1, problem
    position = error.position if isinstance(error, yaml.reader.ReaderError) else 0
    return text[:position].count("\n") + 1, str(error).splitlines()[0]


def _note_lines(
    loader: _Loader, node: yaml.Node, key_path: KeyPath, name: str, origins: dict[KeyPath, str], seen: set[yaml.Node]
) -> None:
    """Notes the line of every value below a node. A key that stands twice in one mapping is an error.

    seen: the mappings visited so far. An alias brings one again, with its merges expanded, and then keys may repeat.
    """
    if len(origins) > MOST_VALUES:
        what = f"more than {MOST_VALUES:,} values, counted as often as aliases repeat them"
        raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)
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
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        where = f"command line: {override!r}"
        raise _error("expected section.key=value", where=where, code="broken-override")
    try:
        value, _ = _compose(text, name)
    except yaml.YAMLError as error:
        what = f"cannot read the value {text[:40]!r}: {_explain(error, text)[1]}"
        raise _error(what, where=f"command line: {name}", code="broken-override") from error
    value = value if text.strip() else None
    key_path: KeyPath = ()
    for key in name.split("."):
        inside_list = isinstance(document.get(key_path), list) and key.isdecimal() and len(key) < 10
        key_path = (*key_path, int(key) if inside_list else key)
    document.set(key_path, value, origin="command line")


def _error(what: str, *, where: object, advice: str = "", code: str) -> ConfigError:
    return ConfigError([UserError(what, where=where, advice=advice, code=code)])


def _has(node: Any, key: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(key, int) and key < len(node)
    return isinstance(node, dict) and key in node
