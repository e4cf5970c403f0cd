"""Writes the page of a bundle: one static folder, which any web server can offer."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

from imagier.errors import UserError
from imagier.run.output_folder import replace_folder
from imagier.tools.page.bundle import CREDITS, FACTS, Bundle

STATIC = Path(__file__).with_name("static")
"""The page, as it is."""
RUNTIME = Path(__file__).with_name("runtime")
"""ONNX Runtime Web: files of its npm package, those with .xz compressed. docs/demo.md says how to renew them."""


def write_site(bundle: Bundle, out: Path) -> None:
    """Makes the folder `out`, complete or not at all. The page of an earlier call is replaced; files beside it stay.

    UserError if `out` holds something that is no page, or cannot be written.
    """
    _check_target(out)
    owned = [path.name for path in STATIC.iterdir()]
    owned += [RUNTIME.name, FACTS, CREDITS, "generator.*", "samples"]
    with replace_folder(out, owned) as folder:
        bundle.copy_files(folder)
        shutil.copytree(STATIC, folder, dirs_exist_ok=True)  # after the files of the bundle, which may be anybody's
        _unpack_runtime(folder / RUNTIME.name)


def _check_target(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not all((out / name).is_file() for name in ("app.js", FACTS)):
        raise UserError(
            "holds other files, which are not replaced",
            where="out",
            advice=f"name a new folder, or empty {out}",
            code="folder-not-empty",
        )


def _unpack_runtime(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in RUNTIME.iterdir():
        if path.suffix == ".xz":
            (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        else:
            shutil.copyfile(path, folder / path.name)
