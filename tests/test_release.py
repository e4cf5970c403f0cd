"""scripts/release.py, in a small repository of its own with a throw-away key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "imagier"
dynamic = ["version"]
[tool.setuptools]
packages = ["imagier"]
[tool.setuptools.dynamic]
version = { attr = "imagier.__version__" }
"""

CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n## 1.2.3 (2026-12-31)\n\n* A new thing.\n\n## 1.2.2 (2026-01-01)\n\n* Old.\n"
)


class Repository:
    """A repository whose package is ready to be released as 1.2.3."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.key = folder / "key"
        identity = {"NAME": "Ann", "EMAIL": "ann@example.org"}
        people = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in identity.items()}
        nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder)}
        self.environment = {**os.environ, **people, **nothing}
        self.write("pyproject.toml", PYPROJECT)
        self.write("imagier/__init__.py", '__version__ = "1.2.3"\n')
        self.write("CHANGELOG.md", CHANGELOG)
        self.write(".gitignore", "dist/\nran\n")
        self.write("scripts/release.py", (ROOT / "scripts" / "release.py").read_text())
        self.write(".ci/run-all", "#!/bin/sh\ntouch ran\n").chmod(0o755)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        signers = folder / "signers"
        signers.write_text(f"ann@example.org {self.key.with_suffix('.pub').read_text()}")
        self.git("config", "gpg.format", "ssh")
        self.git("config", "user.signingkey", str(self.key))
        self.git("config", "gpg.ssh.allowedSignersFile", str(signers))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def git(self, *words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")

    def release(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts/release.py", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen")
    return Repository(tmp_path)


@pytest.mark.slow
def test_a_release_is_tested_built_and_signed(repository: Repository) -> None:
    pytest.importorskip("build")
    repository.write("imagier/not_committed.py", "")
    repository.write(".gitignore", "dist/\nran\nnot_committed.py\n")
    repository.commit()
    done = repository.release("1.2.3")
    assert done.returncode == 0, done.stderr
    assert (repository.folder / "ran").exists()
    assert repository.git("rev-parse", "v1.2.3^{commit}") == repository.git("rev-parse", "HEAD")
    assert "BEGIN SSH SIGNATURE" in repository.git("cat-file", "tag", "v1.2.3")
    repository.git("verify-tag", "v1.2.3")
    assert "A new thing." in repository.git("tag", "--list", "--format=%(contents:body)", "v1.2.3")
    dist = repository.folder / "dist"
    assert {path.name for path in dist.iterdir()} == {"imagier-1.2.3-py3-none-any.whl", "imagier-1.2.3.tar.gz"}
    with tarfile.open(dist / "imagier-1.2.3.tar.gz") as archive:
        assert "imagier-1.2.3/imagier/__init__.py" in archive.getnames()
    with zipfile.ZipFile(dist / "imagier-1.2.3-py3-none-any.whl") as wheel:
        assert [name for name in wheel.namelist() if name.startswith("imagier/")] == ["imagier/__init__.py"]


def _leave_a_file(repository: Repository) -> None:
    repository.write("imagier/new.py", "")


def _change_the_version(repository: Repository) -> None:
    repository.write("imagier/__init__.py", '__version__ = "1.2.4"\n')
    repository.commit()


def _forget_the_changelog(repository: Repository) -> None:
    repository.write("CHANGELOG.md", CHANGELOG.replace("## 1.2.3 (2026-12-31)\n\n* A new thing.\n\n", ""))
    repository.commit()


def _leave_entries_unreleased(repository: Repository) -> None:
    repository.write("CHANGELOG.md", CHANGELOG.replace("## Unreleased\n", "## Unreleased\n\n* Another.\n"))
    repository.commit()


def _say_nothing(repository: Repository) -> None:
    repository.write("CHANGELOG.md", CHANGELOG.replace("* A new thing.\n", ""))
    repository.commit()


def _give_no_date(repository: Repository) -> None:
    repository.write("CHANGELOG.md", CHANGELOG.replace("2026-12-31", "soon"))
    repository.commit()


def _tag_before(repository: Repository) -> None:
    repository.git("tag", "v1.2.3")


def _lose_the_key(repository: Repository) -> None:
    repository.key.unlink()


def _trust_nobody(repository: Repository) -> None:
    repository.git("config", "gpg.ssh.allowedSignersFile", os.devnull)


def _fail_tests(repository: Repository) -> None:
    repository.write(".ci/run-all", "#!/bin/sh\nexit 1\n")
    repository.commit()


def _change_files_in_tests(repository: Repository) -> None:
    repository.write(".ci/run-all", "#!/bin/sh\necho >> CHANGELOG.md\n")
    repository.commit()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_leave_a_file, "imagier/new.py"),
        (_change_the_version, "version 1.2.4, not 1.2.3"),
        (_forget_the_changelog, "no heading for 1.2.3"),
        (_leave_entries_unreleased, "below Unreleased"),
        (_say_nothing, "says nothing about 1.2.3"),
        (_give_no_date, "no date"),
        (_tag_before, "there is a tag v1.2.3"),
        (_lose_the_key, "git commit-tree fails"),
        (_trust_nobody, "git verify-commit fails"),
        (_fail_tests, ".ci/run-all fails"),
        (_change_files_in_tests, "CHANGELOG.md"),
    ],
)
def test_what_is_not_in_order_is_refused(repository: Repository, spoil, reason: str) -> None:
    spoil(repository)
    before = repository.git("for-each-ref")
    done = repository.release("1.2.3")
    assert done.returncode == 2
    assert reason in done.stderr
    assert repository.git("for-each-ref") == before
    assert not (repository.folder / "dist").exists()


def test_the_notes_of_a_version_are_those_of_its_heading(repository: Repository) -> None:
    assert repository.release("--notes", "1.2.3").stdout == "* A new thing.\n"
    assert repository.release("--notes", "1.2.2").returncode == 2, "not the version of the package"
