"""Dockerfile and workflows: what they name is there, what they use is pinned, and versions agree."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PYTHONS = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def steps(path: Path) -> Iterator[dict]:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from job.get("steps", [])


def instructions(dockerfile: str) -> list[tuple[str, list[str]]]:
    """Each instruction of a Dockerfile, with its words."""
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], shlex.split(line)[1:]) for line in text.splitlines() if line.strip()]


@each_workflow
def test_every_action_is_pinned_to_a_commit(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for action in used:
        assert action.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@each_workflow
def test_a_job_may_do_no_more_than_it_must(path: Path) -> None:
    """Reading is the rule; only publishing and the release itself get another right, and only one."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    rights = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert rights == ({} if path.stem == "ci" else {"publish": {"id-token": "write"}, "github": {"contents": "write"}})
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_tests_run_on_the_versions_that_the_package_promises() -> None:
    (oldest_python,) = re.findall(r'requires-python = ">=(.+)"', PYPROJECT)
    (oldest_torch,) = re.findall(r'"torch>=(.+)"', PYPROJECT)
    matrix = yaml.safe_load((WORKFLOWS[0]).read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert matrix == {"python": PYTHONS, "torch": [oldest_torch, "latest"]}
    assert PYTHONS[0] == oldest_python


@each_workflow
def test_files_and_commands_of_a_workflow_exist(path: Path) -> None:
    for step in steps(path):
        for word in shlex.split(step.get("run", "").replace("\\\n", " ")):
            if re.fullmatch(r"(scripts|tests|docs)/[\w/.-]+", word):
                assert (ROOT / word).exists(), word


def test_one_version_of_uv_installs_everywhere() -> None:
    versions = {step["with"]["version"] for path in WORKFLOWS for step in steps(path) if "setup-uv" in str(step)}
    assert versions == set(re.findall(r"uv==([\d.]+)", (ROOT / "Dockerfile").read_text()))


def test_the_image_is_made_of_what_the_context_holds() -> None:
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == "*"
    allowed = [line.removeprefix("!") for line in kept if line.startswith("!")]
    copies = [words for name, words in instructions((ROOT / "Dockerfile").read_text()) if name == "COPY"]
    sources = {source for words in copies if not words[0].startswith("--from") for source in words[:-1]}
    assert sources
    assert all((ROOT / source).exists() for source in sources)
    assert all(any(fnmatch.fnmatch(source, pattern) for pattern in allowed) for source in sources)
    assert sources == set(allowed), "the context holds nothing that is not used"


def test_the_image_runs_imagier_without_rights_and_keeps_its_large_layers() -> None:
    found = instructions((ROOT / "Dockerfile").read_text())
    assert ("ENTRYPOINT", ["[imagier]"]) in found
    assert [words for name, words in found if name == "USER"] == [["1000"]]
    arguments = dict(words[0].split("=") for name, words in found if name == "ARG")
    assert arguments["PYTHON_VERSION"] in PYTHONS
    assert re.search(rf"^{arguments['EXTRA']} = \[", PYPROJECT, re.M)
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    runs = [" ".join(words) for name, words in found[last:] if name == "RUN"]
    installed = [line for line in runs if "uv pip install" in line]
    assert [line.rpartition(" ")[2] for line in installed[:1]] == ["torch"]
    assert ".whl" in installed[-1], "code changes most often, so it comes last"
