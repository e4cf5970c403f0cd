"""The documentation as a site: every page has its place, what follows from the code is up to date, nothing is loaded
from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
import yaml
from doc_blocks import links

from imagier.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def load_script(name: str) -> ModuleType:
    """A module of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference_pages = load_script("reference_pages")


def list_nav(entries: list) -> Iterator[str]:
    """The pages of a navigation, in its order."""
    for entry in entries:
        for page in entry.values() if isinstance(entry, dict) else [entry]:
            yield from list_nav(page) if isinstance(page, list) else [page]


def test_every_page_is_once_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(list_nav(nav)) == sorted(PAGES)


def test_the_front_page_names_every_page() -> None:
    assert PAGES - {"README.md"} <= set(links(DOCS / "README.md"))


def test_what_follows_from_the_code_is_up_to_date() -> None:
    """If this fails: make reference"""
    pages = reference_pages.render_pages()
    assert [name for name, text in pages.items() if (DOCS / name).read_text(encoding="utf-8") != text] == []


# Not data, which has commands of its own, and init, which has no flags.
@pytest.mark.parametrize("command", [*sorted(COMMANDS.keys() - {"data", "init"}), "data preview", "data build flow"])
def test_the_page_of_a_command_has_the_flags_of_its_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # so that no flag is broken at the end of a line
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    section = (DOCS / "commands.md").read_text().partition(f"\n## imagier {command}\n")[2].partition("\n## ")[0]
    help_, page = capsys.readouterr().out.partition("options:")[2], section.partition("```\n\n")[2]
    assert find_flags(page) == find_flags(help_) - {"-h", "--help"} and "--help" in find_flags(help_) and page


def find_flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))


def test_entries_of_docstrings_become_lists() -> None:
    pytest.importorskip("griffe")
    text = "Finds <b>, not `<c>`::\n\n    x = [<d>]\n\nfirst: One,\nin two lines.\nsecond: Two.\nthird: no argument."
    shown = "Finds &lt;b>, not `<c>`:\n\n    x = [<d>]\n\n\n* `first`: One,\n    in two lines.\n* `second`: Two."
    assert (
        load_script("docstring_entries").write_entries(text, {"first", "second"}) == f"{shown}\n    third: no argument."
    )


class Targets(HTMLParser):
    """What a page of the site links to and loads, and the names that it can be linked by."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.names |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in values:
            self.loaded.add(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.add(values["href"])


def read_page(path: Path) -> Targets:
    targets = Targets()
    targets.feed(path.read_text(encoding="utf-8"))
    return targets


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("zensical")
    for name in ("docs", "scripts", "imagier"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path: read_page(path) for path in (tmp_path / "site").rglob("*.html") if path.name != "404.html"}
    assert len(pages) == len(PAGES)
    for path, page in pages.items():
        for target in page.loaded | {link for link in page.links if not re.match(r"(https?|mailto):", link)}:
            file, _, name = unquote(target).partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.is_file() and there.is_relative_to(tmp_path / "site"), f"{path.name}: {target}"
            assert not name or there not in pages or name in pages[there].names, f"{path.name}: {target}"
    wanted = set(re.findall(r"^::: (\S+)", "".join(reference_pages.render_pages().values()), re.M))
    assert wanted <= set().union(*(page.names for page in pages.values()))
