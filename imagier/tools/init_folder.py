"""A folder to start in: a config for a method or of an example, a README with the next commands, a .gitignore.

The configs lie in imagier/configs: those for one's own data in `start`, one for each method; examples beside it. What a
folder says is read from the header of its config.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from imagier.errors import UserError
from imagier.train.disk import describe_error, write_atomic

CONFIGS = Path(__file__).parents[1] / "configs"
START = "start"

_LABEL = re.compile(r"(?P<label>[A-Z][a-z]+): +(?P<text>.*)")

_GITIGNORE = """\
# what commands make, and data
/data/
/logs/
/out/
/check.html
__pycache__/
"""


@dataclass(frozen=True)
class Template:
    """A config that a folder can start from."""

    name: str
    """Of a method ("spade"), or of an example ("spade/openmoji64")."""
    path: Path

    @property
    def is_example(self) -> bool:
        """Whether a command makes its data."""
        return "/" in self.name

    @property
    def text(self) -> str:
        """The config as it is in a folder of its own, where commands name it without a path."""
        text = self.path.read_text(encoding="utf-8").replace("python train.py", "imagier train")
        return re.sub(r"\bconfigs/\w+/", "", text)

    @property
    def title(self) -> str:
        """What it trains: the paragraph at the beginning of its header."""
        return " ".join(self._header[: self._header.index("")])

    @property
    def layout(self) -> list[str]:
        """Where files are expected: a line for each, with what it holds. Nothing for an example."""
        return self._entry("Layout")

    @property
    def commands(self) -> list[str]:
        """The next three: for the data, to train, and to make images. Each is one line."""
        data, train = (_join(self._entry(label)) for label in ("Data", "Launch"))
        words = shlex.split(train)
        logdir = words[words.index("--logdir") + 1]
        return [data, train, f"imagier infer --logdir {logdir} --output out"]

    @property
    def _header(self) -> list[str]:
        comment = self.text.partition("\n\n")[0]
        return [line.removeprefix("#").removeprefix(" ") for line in comment.splitlines()]

    def _entry(self, label: str) -> list[str]:
        """The lines of the header that begin with a label, up to the next one, without their indentation."""
        found: list[str] = []
        current, indent = "", 0
        for line in self._header:
            match = _LABEL.fullmatch(line)
            if match:
                current, indent = match["label"], match.start("text")
            if current == label:
                found.append(line[indent:])
        return found


def list_templates() -> dict[str, Template]:
    """All templates by their name, those for methods first."""
    found = []
    for path in CONFIGS.glob("*/*.yaml"):
        folder = path.parent.name
        found.append(Template(path.stem if folder == START else f"{folder}/{path.stem}", path))
    ordered = sorted(found, key=lambda template: (template.is_example, template.name))
    return {template.name: template for template in ordered}


def find_template(name: str) -> Template:
    """The template of a name. UserError (unknown-template) if there is none."""
    templates = list_templates()
    if name not in templates:
        from imagier.config.find import did_you_mean  # takes a while

        advice = did_you_mean(name, list(templates)) or "`imagier init` lists all"
        raise UserError("no method or example of this name", where=name, advice=advice, code="unknown-template")
    return templates[name]


def init_folder(name: str, folder: Path) -> tuple[list[Path], list[Path]]:
    """Writes a config, README.md and .gitignore into a folder, which need not exist.

    Returns the files that it wrote, and those that were there and stay. UserError if there is a config of this name
    (existing-file), no such template, or if the folder cannot be written to (unwritable-folder).
    """
    template = find_template(name)
    config = folder / template.path.name
    if _is_there(config):
        advice = "name another folder, or rename that file"
        raise UserError(
            "there is such a file, and none is overwritten", where=config, advice=advice, code="existing-file"
        )
    files = {folder / "README.md": _render_readme(template), folder / ".gitignore": _GITIGNORE, config: template.text}
    kept = [path for path in files if _is_there(path)]
    written = [path for path in files if path not in kept]
    try:
        for path in written:
            with write_atomic(path) as file:
                file.write(files[path].encode())
    except OSError as error:
        raise UserError(
            f"cannot be written to: {describe_error(error)}", where=folder, code="unwritable-folder"
        ) from error
    return sorted(written), kept


def _is_there(path: Path) -> bool:
    """Whether writing would replace something, be it a link that leads nowhere."""
    return path.exists() or path.is_symlink()


def _join(lines: list[str]) -> str:
    """A command, whose lines end with a backslash where it goes on; what follows is not its own."""
    command = ""
    for line in lines:
        command += line.strip()
        if not command.endswith("\\"):
            break
        command = command.removesuffix("\\")
    return command


def _render_readme(template: Template) -> str:
    file = template.path.name
    data, train, infer = template.commands
    if template.layout:
        files = "\n".join(template.layout)
        layout = f"## Your data\n\nPut your files here:\n\n```text\n{files}\n```\n\n"
        about_data = "find faults in your data"
    else:
        layout, about_data = "", "make the data"
    return f"""\
# {template.name}

{template.title}

`{file}` describes the training. `imagier explain KEY --config {file}` says what a key is for.

{layout}## Commands

In this folder, {about_data}, train, and make an image of every held-out sample:

```bash
{data}
{train}
{infer}
```

* `imagier train --config {file} --dry-run` says what is wrong or missing, before anything is trained.
* The same `imagier train` continues a training that was stopped.
* `report.html` in the folder of `--logdir` shows curves, images and scores while it trains.
"""
