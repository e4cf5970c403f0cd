"""Paths that a caller names: whether they are there, and which was probably meant if not."""

from __future__ import annotations

import difflib
from pathlib import Path

from imagier.errors import UserError


def no_such_path(path: Path, what: str, *, where: object = None, code: str) -> UserError:
    """The error for a path that is not there. where: how to call it, if not by itself."""
    return UserError(what, where=path if where is None else where, advice=suggest_sibling(path), code=code)


def suggest_sibling(path: Path) -> str:
    """Advice that names what is there under a similar name: "did you mean logs/mine?"; nothing if there is nothing."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:  # the first part that is not there
        missing = missing.parent
    try:
        names = [other.name for other in missing.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.6)
    rest = path.relative_to(missing)
    return f"did you mean {missing.with_name(near[0]) / rest}?" if near else ""


def check_logdir(logdir: str | Path) -> None:
    """UserError unless it is the folder of a run."""
    path = Path(logdir)
    if not path.exists():
        raise no_such_path(path, "no such folder", where=f"logdir {path}", code="missing-logdir")
