"""README and docs: every block of code runs, every link leads somewhere, every line is short, every word is ours."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import doc_commands
import doc_sandbox
import pytest
import yaml
from any_type import METHOD, VIDEOS
from contract.experiment import CPU, loader_of
from doc_blocks import Block, anchors, blocks, commands, inline_commands, links, prose
from images import write

from imagier.config.read import read
from imagier.errors import UserError
from imagier.recipe import Position

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*PAGES, ROOT / "CHANGELOG.md"]

LONGEST_LINE = 120
MOST_NOT_RUN = 2
"""Blocks behind `<!-- not run: why -->`, of all pages together."""

NETWORKS = ("gen", "dis", "gen_opt", "dis_opt")

FORBIDDEN = re.compile(
    r"\b(pictures?|critics?|colou?red pictures?|colours?|coloured|told|tells|homeless|normalis\w+|grey)\b", re.I
)
ALLOWED = re.compile(r"WGAN critic")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_text = pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a page's blocks run in, one after the other; modules made there are forgotten behind them."""
    folder = doc_sandbox.build(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(
            getattr(sys.modules[name], "__file__", None) or getattr(sys.modules[name], "__path__", "")
        ):
            del sys.modules[name]


@each_page
def test_every_block_of_a_page_runs(page: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.is_run:
            print(block.place)  # where a failure is, pytest shows it
            _run(block, names, monkeypatch)


@each_page
def test_flags_within_a_paragraph_are_those_of_the_command(page: Path) -> None:
    for words in inline_commands(page):
        argv = doc_commands.ours(words)
        assert argv is not None
        doc_commands.check_flags(argv)


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_text
def test_no_line_is_longer_than_a_screen(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [f"{page.name}:{number}" for number, line in enumerate(lines, 1) if len(line) > LONGEST_LINE] == []


@each_text
def test_words_are_those_of_the_house(page: Path) -> None:
    text = ALLOWED.sub("", prose(page))
    assert FORBIDDEN.findall(text) == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.parent.name)
def test_a_config_says_how_to_get_its_data_and_how_to_start(
    path: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = path.read_text().partition("\n\n")[0].replace("\\\n#", "")
    for label in ("Data", "Launch"):
        (line,) = re.findall(rf"^# {label}: +(.+)$", header, flags=re.M)
        argv = doc_commands.ours(shlex.split(line))
        assert argv is not None
        doc_commands.parse(argv, monkeypatch)


def test_few_blocks_are_not_run() -> None:
    assert len([block.place for page in PAGES for block in blocks(page) if not block.is_run]) <= MOST_NOT_RUN


def test_a_wrong_block_is_found(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no page passes because nothing looks at it."""
    wrong = {
        "bash": "imagier train --config mine.yaml --dry-run --logdirr L",
        "console": "$ torchrun --nproc_per_node=2 train.py --configg mine.yaml",
        "python": "import imagier\nassert imagier.no_such_thing",
        "yaml": "data: {train: {batch_sizes: 2}}",
        "json": "{",
        "": "text",
    }
    for language, text in wrong.items():
        page = write(sandbox / "page.md", f"```{language}\n{text}\n```\n".encode())
        (block,) = blocks(page)
        with pytest.raises((AssertionError, AttributeError, ValueError, UserError, SystemExit)):
            _run(block, {}, monkeypatch)


def _run(block: Block, names: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    if block.file is not None:
        write(Path(block.file), block.text.encode())
    if block.language in ("bash", "console"):
        for command in commands(block):
            doc_commands.run(command, monkeypatch)
    elif block.language == "python" and block.file is not None:
        importlib.invalidate_caches()
        importlib.import_module(block.file.removesuffix(".py").replace("/", "."))
    elif block.language == "python":
        code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)
    elif block.language == "yaml":
        _check_yaml(block.text)
        if block.file is not None:
            write(Path(block.file), doc_sandbox.small(block.text).encode())
    elif block.language == "json":
        json.loads(block.text)
    else:
        assert block.language == "text", "a fence without a language: text, bash, python, yaml ..."


def _check_yaml(text: str) -> None:
    """A config, or a part of one that stands on a small one; a batch is read where its data are in the sandbox."""
    tree = yaml.safe_load(text)
    path = write(Path("block.yaml"), yaml.safe_dump(_merged(_base(tree), tree), sort_keys=False).encode())
    config, notes = read(path)
    assert notes == []
    split = config.run.data.train
    if split is not None and all(Path(root).is_dir() for root in split.roots):
        small, _ = read(path, ["data.train.batch_size=2", "data.num_workers=0"])
        next(loader_of(small, CPU).stream(Position()))


def _base(tree: dict) -> dict:
    """What a part of a config stands on: mine.yaml of the first tutorial, or its data with a method that reads
    anything; nothing, if it is whole."""
    if "type" in tree.get("trainer", {}) and "type" in tree.get("data", {}):
        return {}
    base = yaml.safe_load(Path("mine.yaml").read_text())
    if "trainer" in tree and "type" in tree["trainer"]:
        return {key: value for key, value in base.items() if key not in NETWORKS}
    if tree.keys() & {"trainer", *NETWORKS}:
        return base
    clips = tree.get("data", {}).get("type") in VIDEOS
    write(Path("docs_lab/any.py"), METHOD.format(clips=clips).encode())
    sys.modules.pop("docs_lab.any", None)
    base |= {section: {"type": "docs_lab.any"} for section in ("trainer", "gen", "dis")}
    if "input_types" in tree.get("data", {}):
        base["data"] = {key: base["data"][key] for key in ("type", "train")}
    return base


def _merged(base: dict, over: dict) -> dict:
    """`base` with the values of `over`, section by section; augmentations and classes come with all their keys."""
    sections = [key for key in base.keys() & over.keys() - {"augmentations"} if isinstance(over[key], dict)]
    shared = [key for key in sections if key == "data" or "type" not in over[key]]
    both = {key: _merged(base[key], over[key]) for key in shared}
    return {**base, **over, **both}
