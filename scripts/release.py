"""Makes a release: checks, tests, builds, and a signed tag. Makes no tag where anything is not in order.

python scripts/release.py 0.3.0           # checks, runs .ci/run-all, builds into dist/, tags v0.3.0
python scripts/release.py --notes 0.3.0   # prints its section of CHANGELOG.md, if it is the package's version

Nothing is pushed. Pushing the tag publishes (.github/workflows/release.yml).
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Refused(Exception):
    """Why there is no release."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 2 if the release is refused."""
    parser = argparse.ArgumentParser(description="Makes a release: checks, tests, builds, and a signed tag.")
    parser.add_argument("version", help="as in imagier/__init__.py and CHANGELOG.md: 0.3.0")
    parser.add_argument("--notes", action="store_true", help="only print what CHANGELOG.md says about it")
    args = parser.parse_args(argv)
    try:
        check_version(args.version)
        notes = read_notes(args.version)
        if args.notes:
            print(notes)
        else:
            release(args.version, notes)
    except Refused as refused:
        print(f"no release: {refused}", file=sys.stderr)
        return 2
    return 0


def release(version: str, notes: str) -> None:
    """Tags the current commit once everything else has passed. Refused if something is not in order."""
    tag = f"v{version}"
    check_tree(tag)
    check_signing()
    commit = git("rev-parse", "HEAD")
    print(f"{tag} is to be {commit[:12]}: running .ci/run-all", flush=True)
    if subprocess.run([ROOT / ".ci" / "run-all"], cwd=ROOT, check=False).returncode != 0:
        raise Refused(".ci/run-all fails")
    check_tree(tag)
    if git("rev-parse", "HEAD") != commit:
        raise Refused("the tests ran on another commit; start again")
    for path in build(version):
        print(f"built: {path.relative_to(ROOT)}")
    git("tag", "--sign", tag, commit, "--cleanup=whitespace", "--message", f"Imagier {version}\n\n{notes}")
    try:
        git("verify-tag", tag)
    except Refused:
        git("tag", "--delete", tag)
        raise
    print(f"tagged: {tag}\nto publish it: git push origin {tag}")


def check_version(version: str) -> None:
    """Refused unless the package has this version, of the form 1.2.3."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refused(f"{version!r} is not of the form 1.2.3")
    text = (ROOT / "imagier" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE)
    if found is None or found[1] != version:
        raise Refused(f"imagier/__init__.py has version {found and found[1]}, not {version}")


def read_notes(version: str) -> str:
    """What CHANGELOG.md says about a version. Refused if it says nothing, has no date, or entries of no version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, flags=re.MULTILINE))
    if sections.get("Unreleased", "").strip():
        raise Refused(f"CHANGELOG.md has entries below Unreleased; give them the heading: ## {version} (date)")
    headings = [heading for heading in sections if heading.split(" ")[0] == version]
    if not headings:
        raise Refused(f"CHANGELOG.md has no heading for {version}")
    date = re.fullmatch(rf"{re.escape(version)} \((.+)\)", headings[0])
    try:
        datetime.date.fromisoformat(date[1] if date else "")
    except ValueError as error:
        raise Refused(f"CHANGELOG.md: {headings[0]!r} has no date, as in: ## {version} (2026-12-31)") from error
    notes = str(sections[headings[0]]).strip()
    if not notes:
        raise Refused(f"CHANGELOG.md says nothing about {version}")
    return notes


def check_tree(tag: str) -> None:
    """Refused if files differ from the commit, or if there is such a tag."""
    changed = git("status", "--porcelain")
    if changed:
        raise Refused(f"files are not committed:\n{changed}")
    if git("tag", "--list", tag):
        raise Refused(f"there is a tag {tag}")


def check_signing() -> None:
    """Refused if git cannot sign, or not verify what it signs. Tries it on a commit that nothing refers to."""
    git("verify-commit", git("commit-tree", "--gpg-sign", "HEAD^{tree}", "-m", "Try to sign"))


def build(version: str) -> list[Path]:
    """Builds source archive and wheel from the commit alone, without what else lies in the folder; their paths."""
    with tempfile.TemporaryDirectory() as scratch:
        archive, source, built = (Path(scratch, name) for name in ("source.tar", "source", "dist"))
        git("archive", "--output", str(archive), "HEAD")
        shutil.unpack_archive(archive, source)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Refused(f"it cannot be built:\n{(done.stdout + done.stderr)[-3000:]}")
        names = sorted(path.name for path in built.iterdir())
        expected = [f"imagier-{version}-py3-none-any.whl", f"imagier-{version}.tar.gz"]
        if names != expected:
            raise Refused(f"built {names} instead of {expected}")
        (ROOT / "dist").mkdir(exist_ok=True)
        return [Path(shutil.copy(built / name, ROOT / "dist" / name)) for name in names]


def git(*words: str) -> str:
    """What a git command prints. Refused, with its error, if it fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(f"git {words[0]} fails: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
