"""Runs the commands that the documentation shows, small; those that cannot run here are parsed by their own parsers."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from doc_blocks import Command
from torch.distributed.run import get_args_parser

from imagier.cli import main
from imagier.config.read import read

ROOT = Path(__file__).parents[1]

SMALL = [
    "max_iter=2",
    "logging_iter=1",
    "snapshot_save_iter=1",
    "image_save_iter=2",
    "metrics_iter=2",
    "data.num_workers=0",
    "data.train.batch_size=2",
    "data.val.batch_size=2",
]
"""What makes a training of the documentation small; it stands behind the command's own overrides."""

SHELL = {"cp", "ln", "ls", "mkdir", "cat", "mv", "rm", "echo", "cd"}
OTHERS = {"aws", "docker", "ffmpeg", "git", "kubectl", "pytest", "python3", "sha256sum", "sky", "source", "uv", "wandb"}
"""Programs that are not ours, which this machine need not have."""

SLOW = [
    ["submit"],
    ["verify-resume"],
    ["tune"],
    ["sweep"],
    ["demo"],
    ["convert"],
    ["export"],
    ["data", "openmoji"],
    ["data", "openmoji-tones"],
    ["data", "vizdoom"],
    ["data", "crafter"],
]
SLOW_FLAGS = {"--compile", "--debug", "--estimator", "--profile", "--wandb"}
"""Commands that tests of their own run."""


def run(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command in the current folder, or checks its flags. AssertionError if it fails or is not known."""
    words = command.words
    if words[0] in SHELL:
        subprocess.run(words, check=True)
    elif words[0] == "pip":
        _check_pip(words)
    elif words[0] == "make":
        assert all(re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.M) for word in words[1:]), words
    elif words[0] == "python" and words[1].startswith(("benchmarks/", "docs/", "tests/", "scripts/release")):
        _check_script(words)
    elif ours(words) is not None:
        _run_ours(words, command.output, monkeypatch)
    else:
        assert words[0] in OTHERS or words[:2] == ["python", "-m"], f"not known: {words}"


def ours(words: Sequence[str]) -> list[str] | None:
    """What the command line of imagier gets, behind whatever launches it; None for another program."""
    launchers = {"srun": 1, "sbatch": 2}
    if words[0] in launchers:
        rest = ["imagier", "train", *words[2:]] if words[0] == "sbatch" else words[1:]
        return ours(rest)
    if words[0] == "torchrun":
        args = get_args_parser().parse_args(list(words[1:]))
        script = ["-m", args.training_script] if args.module else [args.training_script]
        return ours(["python", *script, *args.training_script_args])
    if words[0] == "imagier":
        return list(words[1:])
    if words[:3] == ["python", "-m", "imagier"]:
        return list(words[3:])
    scripts = {
        "train.py": ["train"],
        "inference.py": ["infer"],
        "evaluate.py": ["evaluate"],
        "scripts/build_lmdb.py": ["data", "build", "lmdb"],
        "scripts/build_index.py": ["data", "index"],
    }
    if words[0] == "python" and words[1] in scripts:
        return [*scripts[words[1]], *words[2:]]
    return None


def parse(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses a command line of imagier with the parser of its command, and checks the overrides of its config."""
    seen = []
    module = _module(argv)
    with monkeypatch.context() as patched:
        patched.setattr(module, "run", lambda args: seen.append(args) or 0)
        with contextlib.redirect_stderr(io.StringIO()) as complaint:
            try:
                status = main(argv)
            except SystemExit as error:
                status = error.code
    assert status == 0, f"imagier {' '.join(argv)}: {complaint.getvalue()}"
    given = vars(seen[0])
    if isinstance(given.get("config"), Path) and given["config"].is_file():
        read(given["config"], given.get("overrides") or [])


def check_flags(argv: list[str]) -> None:
    """That every flag of an abbreviated command line is one of its command's."""
    if argv[0] == "submit" and "--" in argv:
        cut = argv.index("--")
        check_flags(["train", *argv[cut + 1 :]])
        argv = argv[:cut]
    known = set(_flags(argv))
    unknown = [word for word in argv if word.startswith("-") and word.partition("=")[0] not in known]
    assert not unknown, f"imagier {' '.join(argv)}: {unknown}"


def _run_ours(words: list[str], output: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ours(words)
    assert argv is not None
    is_slow = any(argv[: len(slow)] == slow for slow in SLOW) or SLOW_FLAGS & set(argv)
    if is_slow or words[0] in ("torchrun", "srun", "sbatch"):
        parse(argv, monkeypatch)
        return
    if argv[0] == "train":
        parse(argv, monkeypatch)
        argv = [*_checkpoints_here(argv), "--device", "cpu", *SMALL]
    if argv[:2] == ["data", "check"]:
        argv = [*argv, "--workers", "1"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = main(argv)
    assert status == 0, f"{' '.join(words)} ended with {status}:\n{printed.getvalue()[-2000:]}"
    if output is not None:
        Path(output).write_text(printed.getvalue())


def _checkpoints_here(argv: Sequence[str]) -> list[str]:
    """The command with the latest checkpoint of a folder instead of one that only a whole run would have written."""
    found = []
    for word in argv:
        path = Path(word)
        if path.suffix == ".pt" and not path.is_file():
            path = max(path.parent.glob("*.pt"), default=path)
        found.append(str(path) if path.suffix == ".pt" else word)
    return found


def _module(argv: Sequence[str]) -> ModuleType:
    names = [argv[0]] if argv[0] != "data" else ["data", argv[1]]
    return import_module(".".join(["imagier.cli", *(name.replace("-", "_") for name in names)]))


def _flags(argv: Sequence[str]) -> Iterator[str]:
    import argparse

    parser = argparse.ArgumentParser()
    _module(argv).add_arguments(parser)
    yield from parser._option_string_actions


def _check_pip(words: Sequence[str]) -> None:
    """`pip install`, with extras that there are."""
    assert words[1] == "install", words
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.M), f"no extra {extra}"


def _check_script(words: Sequence[str]) -> None:
    """A script that is there, and whose text knows the flags."""
    text = (ROOT / words[1]).read_text()
    missing = [word for word in words[2:] if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text]
    assert not missing, f"{words[1]} has no {missing}"
