"""Paths: whether those that a caller names are there, and names of folders that several parts know."""

from __future__ import annotations

from pathlib import Path

from imagier.errors import UserError, suggest_sibling

COMPARISON = "side_by_side"
"""The folder of frames and videos that show inputs, result and truth, in that of the results."""

ROOT_NAME = "video"
"""The name of a sequence whose frames lie in no folder."""


def no_such_path(path: Path, what: str, *, where: object = None, code: str) -> UserError:
    """The error for a path that is not there. where: how to call it, if not by itself."""
    return UserError(what, where=path if where is None else where, advice=suggest_sibling(path), code=code)


def check_logdir(logdir: str | Path) -> None:
    """UserError unless it is the folder of a run."""
    path = Path(logdir)
    if not path.exists():
        raise no_such_path(path, "no such folder", where=f"logdir {path}", code="missing-logdir")
