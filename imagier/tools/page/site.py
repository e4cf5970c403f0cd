"""Writes the page of a bundle: one static folder, which any web server can offer."""

from __future__ import annotations

import lzma
import os
import shutil
from pathlib import Path

from imagier.errors import UserError
from imagier.tools.page.bundle import Bundle

STATIC = Path(__file__).with_name("static")
"""The page, as it is."""
RUNTIME = Path(__file__).with_name("runtime")
"""ONNX Runtime Web: files of its npm package, those with .xz compressed. docs/demo.md says how to renew them."""


def write_site(bundle: Bundle, out: Path) -> None:
    """Makes the folder `out`, complete or not at all; a page of an earlier call is replaced.

    UserError if `out` holds anything else.
    """
    check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(STATIC, temporary)
        _unpack_runtime(temporary / "runtime")
        for name in bundle.files():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name, temporary / name)
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_target(out: Path) -> None:
    """UserError if a folder holds something that is no page."""
    if out.is_dir() and any(out.iterdir()) and not all((out / name).is_file() for name in ("app.js", "bundle.json")):
        raise UserError(
            "holds other files, which are not replaced",
            where="out",
            advice=f"name a new folder, or empty {out}",
            code="folder-not-empty",
        )


def _unpack_runtime(folder: Path) -> None:
    folder.mkdir()
    for path in RUNTIME.iterdir():
        if path.suffix == ".xz":
            (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        else:
            shutil.copyfile(path, folder / path.name)
