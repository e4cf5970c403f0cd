"""Arguments that name folders."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def folder(text: str) -> Path:
    """The path of a folder. ArgumentTypeError where a file is in its way, or where there can be no such path."""
    path = Path(text)
    there = _nearest(path)
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is a file; name a folder")
    return path


def writable_folder(text: str) -> Path:
    """The path of a folder that can be made, or written to. ArgumentTypeError where it cannot; nothing is made."""
    path = folder(text)
    there = _nearest(path)
    try:
        # Only a try tells: what a file system refuses, its permissions need not show. Other ranks try too, at the same
        # time: hence under a name of its own, and never the folder itself.
        Path(tempfile.mkdtemp(dir=there)).rmdir()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {there}: {error.strerror}; name another folder") from error
    return path


def _nearest(path: Path) -> Path:
    """The first of a path and the folders around it that is there."""
    try:
        return next(part for part in (path, *path.parents) if part.exists())
    except OSError as error:  # a name that is too long, a folder that must not be looked into
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}; name another folder") from error
