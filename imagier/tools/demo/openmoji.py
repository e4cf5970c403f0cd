"""The default data set: pairs of line art and colored image, drawn from the SVG files of the OpenMoji project.

Every emoji's file keeps its drawing in named groups. The black outlines stand in "line"; shapes that only a
black-and-white print needs (the letter of a letter button, the stars of a night sky) stand in "line-supplement",
below the colors. Both together are the line art: the input. The whole file is the image to be made of it.

Left out, and counted: emoji without line art; line art shared by more than 16 emoji (331 flags are one bare frame, and
nothing in it tells the flag); and, unless asked for, the variants of skin tone (one line art for six colorings, which
no input tells apart; the yellow default stays).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imagier.tools.demo import emoji
from imagier.tools.demo.emoji import Pixels, alike, chance, families, package_svgs, untoned

MANIFEST = "openmoji.json"
# Emoji of one line art. The bare frame of the flags has 331, the next (a clock's face) 12: anything between parts them.
MAX_ALIKE = 16

NO_LINES, FRAME_ONLY, TONED = "no line art", "line art shared by too many", "skin tone variant"

CREDITS = f"""{emoji.CREDITS}\
What was changed: the SVG files were drawn as PNG files of {{size_px}} x {{size_px}} pixels on a white background
("images"); of the same files the groups "line" and "line-supplement" alone were drawn ("edge_maps"); some emoji
were left out; the rest was split into "train" and "val". These images are adapted material under the same license.
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
    """One emoji, drawn: two PNG files, and the `thumbnail` of its line art."""

    name: str
    line_png: bytes
    color_png: bytes
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

    images: 8-bit RGB, size_px (32 to 1024) squared, on white. edge_maps: 8-bit gray of the same size, black lines (0)
    on white (255). `val_fraction`, in (0, 1), is about the share of val: see `val_names`. `workers` processes draw
    (default: one a core, at most 8); they are forked, so without Linux one process does all. `progress(done, total)`
    is called after each emoji. The bytes are the same at every call, and the split is the same for every size.

    A folder made with the same settings is returned as it is. UserError: `out` holds anything else, a size or
    fraction out of range, or a missing package.
    """
    settings = {"size_px": size_px, "val_fraction": val_fraction, "skin_tones": skin_tones}
    emoji.check_numbers(size_px, val_fraction)
    if emoji.is_taken(out):
        return _already_there(out, settings)
    svgs, version = package_svgs()
    chosen = [svg for svg in svgs if skin_tones or svg.stem == untoned(svg.stem)]
    drawings = []
    for drawing in emoji.draw_all(partial(_draw, size_px=size_px), chosen, workers):
        drawings.append(drawing)
        if progress is not None:
            progress(len(drawings), len(chosen))
    kept, left_out = _usable(drawings)
    val = val_names({drawing.name: drawing.ink for drawing in kept}, val_fraction)
    counts = {"train": len(kept) - len(val), "val": len(val)}
    left_out = {TONED: len(svgs) - len(chosen), **left_out}
    manifest = {**settings, "version": version, **counts, "left_out": left_out}
    emoji.write_set(out, _files(kept, val), CREDITS.format_map(manifest), MANIFEST, manifest)
    return Summary(out, size_px, version, **counts, left_out=left_out, already_there=False)


def val_names(ink: Mapping[str, Pixels], val_fraction: float) -> set[str]:
    """Which emoji go to val, whole families of them. ink: name -> thumbnail of its line art, 255 is black.

    A family goes to val if the hash of "val" and its first name (without modifiers), as a number in [0, 1), is below
    `val_fraction`: the same on every machine, in every order of files.
    """
    return {name for family in families(ink) if chance("val", family) < val_fraction for name in family}


def _usable(drawings: Sequence[Drawing]) -> tuple[list[Drawing], dict[str, int]]:
    """The drawings whose line art says something about the image, and how many do not, by reason."""
    ink = {drawing.name: drawing.ink for drawing in drawings if drawing.ink.any()}
    same = defaultdict(set)
    for one, other in alike(ink):
        same[one].add(untoned(other))
        same[other].add(untoned(one))
    kept = [drawing for drawing in drawings if drawing.name in ink and len(same[drawing.name]) < MAX_ALIKE]
    return kept, {NO_LINES: len(drawings) - len(ink), FRAME_ONLY: len(ink) - len(kept)}


def _draw(path: Path, *, size_px: int) -> Drawing:
    svg = path.read_text(encoding="utf-8")
    lines = emoji.line_art(svg, str(path))
    return Drawing(
        name=path.stem,
        line_png=emoji.encode(emoji.pixels(lines, size_px)[..., 0]),
        color_png=emoji.encode(emoji.pixels(svg, size_px)),
        ink=emoji.thumbnail(lines),
    )


def _files(drawings: Sequence[Drawing], val: set[str]) -> Iterator[tuple[str, bytes]]:
    for drawing in drawings:
        split = "val" if drawing.name in val else "train"
        yield f"{split}/images/{drawing.name}.png", drawing.color_png
        yield f"{split}/edge_maps/{drawing.name}.png", drawing.line_png


def _already_there(out: Path, settings: Mapping[str, Any]) -> Summary:
    """The summary of the set in `out`, if it was made with these settings and is whole; else a UserError."""
    manifest = emoji.manifest_of(out, MANIFEST, settings)
    kinds = ("images", "edge_maps")
    emoji.check_counts(out, {f"{split}/{kind}": manifest[split] for split in ("train", "val") for kind in kinds})
    kept = {key: manifest[key] for key in ("size_px", "version", "train", "val", "left_out")}
    return Summary(out=out, **kept, already_there=True)
