"""What a Markdown page holds: fenced blocks, inline commands, links; and the commands in a block of shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w+-]*)\s*$")
_NOT_RUN = re.compile(r"<!-- not run: .+ -->")
_FILE = re.compile(r"^# (?P<path>[\w./-]+\.(?:py|yaml))\n")
_SEPARATORS = {";", "&&", "||", "|", "&"}
_KEYWORDS = {"while", "do", "done", "then", "if", "fi", "exec", ":"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Of its first line of text, from 1 on."""
    language: str
    text: str
    is_run: bool
    """False behind a line `<!-- not run: why -->`."""

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str | None:
        """The path that the first line names, `# my_lab/nets.py`, if the block is a file."""
        match = _FILE.match(self.text)
        return match["path"] if match else None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page. AssertionError where a fence has no end."""
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        indent = len(fence["indent"])
        last = next((i for i in range(number + 1, len(lines)) if lines[i].strip() == fence["ticks"]), None)
        assert last is not None, f"{page.name}:{number + 1}: the fence has no end"
        text = "".join(f"{line[indent:]}\n" for line in lines[number + 1 : last])
        before = next((line for line in reversed(lines[:number]) if line.strip()), "")
        found.append(Block(page, number + 2, fence["language"], text, _NOT_RUN.search(before) is None))
        number = last + 1
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^( *)(`{3,})[\w+-]*\n.*?^ *\2\s*$", "", text, flags=re.M | re.S)


def inline_commands(page: Path) -> Iterator[list[str]]:
    """The words of every `imagier ...` or `python train.py ...` within a paragraph, but for those with an ellipsis."""
    for span in re.findall(r"`([^`]+)`", prose(page)):
        if re.match(r"(imagier|python (train|inference|evaluate)\.py) [^\s-]", span) and "..." not in span:
            yield shlex.split(" ".join(span.split()))


def links(page: Path) -> Iterator[str]:
    """The targets of all links and images that lead to a file of the project, anchors included."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The names under which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@dataclass(frozen=True)
class Command:
    """A simple command of a block of shell."""

    words: list[str]
    output: str | None
    """The file that it is redirected to."""


def commands(block: Block) -> Iterator[Command]:
    """The simple commands of a `bash` block, or of the lines behind `$ ` of a `console` block."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in _SEPARATORS:
                words.append(word)
            elif words:
                yield from _command(words)
                words = []


def _command(words: list[str]) -> Iterator[Command]:
    while words and words[0] in _KEYWORDS:
        words = words[1:]
    if not words or words[0] == "[":
        return
    if ">" in words:
        cut = words.index(">")
        yield Command(words[:cut], words[cut + 1])
    else:
        yield Command(words, None)
