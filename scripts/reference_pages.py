"""Writes the pages that follow from the code, docs/keys.md, docs/commands.md and docs/api: `make reference`."""

from __future__ import annotations

import argparse
import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import imagier
from imagier.cli import get_parser
from imagier.tools.keys_page import render_page as render_keys

ROOT = Path(__file__).parents[1]
PACKAGE = Path(imagier.__file__).parent

_COMMANDS_HEAD = """\
# Commands

`make reference` makes this page from the parsers of the commands, whose `--help` prints the same.

"""

_API = {
    "run": "Train, tune, generate and evaluate. [From Python](../python.md) shows how.",
    "recipe": "What a method of yours implements. [A model of your own](../tutorials/own-model.md) shows how.",
    "losses": "Functions and modules for the losses of methods, torch only.",
    "nn": "Layers and networks that methods share, torch only.",
    "metrics": "What compares images. [Metrics](../metrics.md) says which metric is for what.",
}
"""The pages of docs/api, and how they begin."""


def main() -> None:
    """Writes all pages."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, text in render_pages().items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")


def render_pages() -> dict[str, str]:
    """The text of every page, by its path in docs/."""
    api = {f"api/{room}.md": render_api(room) for room in _API}
    return {"keys.md": render_keys(), "commands.md": render_commands(), **api}


def render_commands() -> str:
    """The page of all commands, those of `imagier data` too."""
    found = dict(_walk(get_parser()))
    rows = [_fill(f"* [{name}](#{name.replace(' ', '-')}): {_escape(text)}") for name, (_, text) in found.items()]
    return _COMMANDS_HEAD + "".join(rows) + "".join(_render_command(name, *each) for name, each in found.items())


def _walk(parser: argparse.ArgumentParser) -> Iterator[tuple[str, tuple[argparse.ArgumentParser, str]]]:
    """The parsers of commands that have no commands below them, with what they are for, by their names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                below = list(_walk(sub))
                yield from below or [(sub.prog, (sub, texts[name]))]


def _render_command(name: str, parser: argparse.ArgumentParser, text: str) -> str:
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    words = [_name_value(action) for action in shown if not action.option_strings]
    flags = ["[flags]"] if len(shown) > len(words) else []
    usage = parser.usage or " ".join([name, *words, *flags])
    head = f"\n## {name}\n\n{_escape(text[0].upper() + text[1:])}.\n\n```text\n{usage}\n```\n\n"
    return head + "".join(_render_argument(parser, action) for action in shown)


def _render_argument(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """One entry: all names of a flag with its value, or a word without a flag; and its help."""
    help_text = parser._get_formatter()._expand_help(action) if action.help else ""
    value = _name_value(action)
    names = [f"`{flag} {value}`" if value else f"`{flag}`" for flag in action.option_strings] or [f"`{value}`"]
    return _fill(f"* {', '.join(names)}" + (f": {_escape(help_text)}" if help_text else ""))


def _name_value(action: argparse.Action) -> str:
    """What stands for the value of an argument: its choices or its name, in the number that it takes."""
    if action.nargs == 0:
        return ""
    default = action.dest.upper() if action.option_strings else action.dest
    name = action.metavar or ("|".join(map(str, action.choices)) if action.choices else default)
    name = name if isinstance(name, str) else " ".join(name)
    forms = {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [...]"}
    if isinstance(action.nargs, int) and isinstance(action.metavar, str):
        return " ".join([name] * action.nargs)
    return forms.get(str(action.nargs), name)


def render_api(room: str) -> str:
    """The page of a room: its modules, or the names of its `__all__`, each with a directive for mkdocstrings."""
    head = f"# imagier.{room}\n\n{_API[room]}\n\nBelow are the docstrings, which `make docs` reads from the code.\n"
    if room == "run":
        rows = [f"imagier.run.{name}" for name in _read_all(PACKAGE / "run" / "__init__.py")]
        return head + "".join(f"\n::: {name}\n" for name in rows)
    modules = {_name_module(path): _first_line(path) for path in _list_files(room)}
    rows = [_fill(f"* `{name}`: {_escape(text)}") for name, text in modules.items()]
    return f"{head}\n{''.join(rows)}" + "".join(f"\n::: {name}\n" for name in modules)


def _list_files(room: str) -> list[Path]:
    """The files of a room that have something public."""
    if room == "recipe":
        return [PACKAGE / "recipe.py", PACKAGE / "alternate.py"]
    return [path for path in sorted((PACKAGE / room).rglob("*.py")) if _has_public(path)]


def _has_public(path: Path) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in _parse(path).body)


def _name_module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def _first_line(path: Path) -> str:
    return re.split(r"\n\n", ast.get_docstring(_parse(path)) or "")[0].replace("\n", " ")


def _read_all(path: Path) -> list[str]:
    """The strings of a module's `__all__`."""
    for node in _parse(path).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    raise AssertionError(f"{path} has no __all__")


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _fill(text: str) -> str:
    """An entry of a list in lines of at most 120 characters."""
    return textwrap.fill(text, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) + "\n"


def _escape(text: str) -> str:
    """`<time>` as code, not as HTML, and `*` as itself; nothing within backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    tags = re.compile(r"[^\s()]*<[^\s()]*?(?=,?(?:[\s()]|$))")
    return "".join(part if part.startswith("`") else tags.sub(r"`\g<0>`", part.replace("*", r"\*")) for part in parts)


if __name__ == "__main__":
    main()
