"""Arguments that name folders."""

from __future__ import annotations

import argparse
from pathlib import Path


def folder(text: str) -> Path:
    """The path of a folder that is there or can be made. ArgumentTypeError where a file is in its way."""
    path = Path(text)
    there = next(part for part in (path, *path.parents) if part.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is a file; name a folder")
    return path
