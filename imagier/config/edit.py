"""Changes values in the text of a YAML file. Its comments, its order and all that is not changed stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from imagier.config.load import ConfigError, dump_inline, load_mapping, load_text
from imagier.errors import UserError

_INDENT = 2


def edit(text: str, overrides: Sequence[str], name: str) -> str:
    """The text with values replaced or added ("section.key=value").

    name: of the file, for messages. UserError if a value is shared (by an anchor) and cannot be changed in one place.
    """
    changed = text
    try:
        for override in overrides:
            keys = override.partition("=")[0].split(".")
            value = load_mapping({}, [override]).get(tuple(keys))
            changed = _set(changed, keys, dump_inline([value])[1:-1])  # as it may stand in braces, too
        is_right = load_text(changed, name).tree == load_text(text, name, overrides).tree
    except (ConfigError, yaml.YAMLError):  # an earlier change left a text that is no YAML
        is_right = False
    if not is_right:
        what = f"its text cannot be changed to hold {' '.join(overrides)}"
        raise UserError(what, where=name, advice="write these values into it by hand", code="cannot-edit")
    return changed


def _set(text: str, keys: Sequence[str], value: str) -> str:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, key in enumerate(keys):
        if isinstance(node, yaml.SequenceNode) and key.isdecimal() and int(key) < len(node.value):
            node = node.value[int(key)]
            continue
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((name, child) for name, child in entries if name.value == key), None)
        if found is None:
            return _insert(text, node, keys[depth:], value, is_root=depth == 0)
        name, node = found
        if depth == len(keys) - 1 and isinstance(node, yaml.CollectionNode) and not node.flow_style:
            return _replace_block(text, name, node, value)
    return _replace(text, node, value)


def _replace(text: str, node: yaml.Node, value: str) -> str:
    """The text with another value in place of one that starts on the line of its key."""
    start, end = node.start_mark.index, node.end_mark.index
    space = " " if start == end else ""  # of "key:", where nothing is written
    newline = "\n" if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") else ""
    return f"{text[:start]}{space}{value}{newline}{text[end:]}"


def _replace_block(text: str, name: yaml.Node, node: yaml.Node, value: str) -> str:
    """The text with a value in place of the lines of a section or a list; a comment beside its key stays."""
    colon = text.index(":", name.end_mark.index) + 1
    beside = text[colon : _line_end(text, colon)].rstrip()
    return f"{text[:colon]} {value}{beside}{text[_line_end(text, _find_end(node)) :]}"


def _insert(text: str, node: yaml.Node, keys: Sequence[str], value: str, *, is_root: bool) -> str:
    """The text with a key, and sections around it, in a section that lacks it."""
    flow = value
    for key in reversed(keys):
        flow = f"{{{key}: {flow}}}"
    if node is None:  # comments alone
        return f"{text.rstrip()}\n{flow}\n".lstrip()
    if not isinstance(node, yaml.MappingNode):  # nothing, or what `edit` will not find right
        return _replace(text, node, flow)
    if node.flow_style:
        brace = node.end_mark.index - 1
        last = [token for token in yaml.scan(text) if token.end_mark.index <= brace][-1]
        at = last.end_mark.index
        between = {"{": "", ",": " "}.get(text[at - 1], ", ")
        return f"{text[:at]}{between}{flow[1:-1]}{text[at:]}"
    first, child = node.value[0]
    column = first.start_mark.column
    lines = [f"{' ' * (column + _INDENT * depth)}{key}:" for depth, key in enumerate(keys)]
    block = "\n".join([*lines[:-1], f"{lines[-1]} {value}"])
    if is_root:
        end = node.end_mark.index  # before a "..."
        return f"{text[:end].rstrip()}\n{block}\n{text[end:]}"
    if isinstance(child, yaml.ScalarNode) and child.start_mark.line == child.end_mark.line == first.start_mark.line:
        at = _line_end(text, child.end_mark.index)  # below the first entry, which often is the type
        return f"{text[:at]}\n{block}{text[at:]}"
    at = first.start_mark.index
    return f"{text[:at]}{block.lstrip()}\n{' ' * column}{text[at:]}"


def _find_end(node: yaml.Node) -> int:
    """Where the last value of a section ends, without the comments after it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node.end_mark.index


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
