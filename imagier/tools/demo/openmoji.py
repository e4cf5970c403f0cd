"""The default data set: pairs of line art and colored image, drawn from the SVG files of the OpenMoji project.

The file of an emoji has named groups. "line" holds the black outlines. "line-supplement", below the colors, holds
shapes that only a black-and-white print needs (the letter of a letter button, the stars of a night sky). Both together
are the line art: the input. The whole file is the target image.

Left out, and counted: emoji without line art; line art shared by more than 16 emoji (331 flags are one bare frame, so
the input does not determine the flag); and, by default, the variants of skin tone (one line art has six colorings; the
yellow one stays).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imagier.run.progress import Update
from imagier.tools.demo import emoji, set_folder
from imagier.tools.demo.emoji import Pixels, find_alike, find_svgs, group_families, hash_to_fraction, strip_tones

MANIFEST = "openmoji.json"
# Emoji per line art. The bare frame of the flags has 331, the next (a clock face) 12; anything between separates them.
MAX_ALIKE = 16

NO_LINES, FRAME_ONLY, TONED = "no line art", "line art shared by too many", "skin tone variant"

CREDITS = f"""{emoji.CREDITS}\
What was changed: the SVG files were drawn as PNG files of {{size_px}} x {{size_px}} pixels on a white background
("images"); of the same files the groups "line" and "line-supplement" alone were drawn ("edge_maps"); some emoji
were left out; the rest was split into "train" and "val". These images are adapted material under the same license.
"""


@dataclass(frozen=True)
class Summary:
    """The contents of a folder made by `render_openmoji`."""

    out: Path
    size_px: int
    version: str
    train: int
    val: int
    left_out: dict[str, int]
    """How many emoji were left out, by reason."""
    is_reused: bool


@dataclass(frozen=True)
class Drawing:
    """One drawn emoji: two PNG files, and the thumbnail of its line art."""

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
    progress: Update | None = None,
) -> Summary:
    """Draws the data set: out/{train,val}/{images,edge_maps}/<code points>.png, CREDITS.txt and openmoji.json.

    images: 8-bit RGB, size_px (32 to 1024) squared, on white. edge_maps: 8-bit gray of the same size, black lines (0)
    on white (255). The bytes are the same at every call, and the split is the same for every size.

    val_fraction: approximate share of val, in (0, 1); see `choose_val_names`. workers: processes that draw (default:
    one per core, at most 8; always one without Linux). progress(done, total) is called after each emoji.

    A folder made with the same settings is kept as it is. UserError if `out` holds anything else, if a size or fraction
    is out of range, or if a package is missing.
    """
    settings = {"size_px": size_px, "val_fraction": val_fraction, "skin_tones": skin_tones}
    emoji.check_settings(size_px, val_fraction)
    if set_folder.is_taken(out):
        return _reuse(out, settings)
    svgs, version = find_svgs()
    chosen = [svg for svg in svgs if skin_tones or svg.stem == strip_tones(svg.stem)]
    drawings = emoji.draw_all(partial(_draw, size_px=size_px), chosen, workers, progress)
    kept, left_out = _drop_ambiguous(drawings)
    val = choose_val_names({drawing.name: drawing.ink for drawing in kept}, val_fraction)
    counts = {"train": len(kept) - len(val), "val": len(val)}
    left_out = {TONED: len(svgs) - len(chosen), **left_out}
    manifest = {**settings, "version": version, **counts, "left_out": left_out}
    emoji.write_set(out, _list_files(kept, val), CREDITS.format_map(manifest), MANIFEST, manifest)
    return Summary(out, size_px, version, **counts, left_out=left_out, is_reused=False)


def choose_val_names(ink: Mapping[str, Pixels], val_fraction: float) -> set[str]:
    """The emoji that go to val, by whole families. ink: name -> thumbnail of its line art, 255 is black.

    A family goes to val if the hash of "val" and its first name (without modifiers), as a number in [0, 1), is below
    `val_fraction`. The result is the same on every machine and for every order of files.
    """
    return {name for family in group_families(ink) if hash_to_fraction("val", family) < val_fraction for name in family}


def _drop_ambiguous(drawings: Sequence[Drawing]) -> tuple[list[Drawing], dict[str, int]]:
    """The drawings whose line art determines the image, and how many others there are, by reason."""
    ink = {drawing.name: drawing.ink for drawing in drawings if drawing.ink.any()}
    same = defaultdict(set)
    for one, other in find_alike(ink):
        same[one].add(strip_tones(other))
        same[other].add(strip_tones(one))
    kept = [drawing for drawing in drawings if drawing.name in ink and len(same[drawing.name]) < MAX_ALIKE]
    return kept, {NO_LINES: len(drawings) - len(ink), FRAME_ONLY: len(ink) - len(kept)}


def _draw(path: Path, *, size_px: int) -> Drawing:
    svg = path.read_text(encoding="utf-8")
    lines = emoji.extract_line_art(svg, str(path))
    return Drawing(
        name=path.stem,
        line_png=set_folder.encode_png(emoji.draw_svg(lines, size_px)[..., 0]),
        color_png=set_folder.encode_png(emoji.draw_svg(svg, size_px)),
        ink=emoji.draw_thumbnail(lines),
    )


def _list_files(drawings: Sequence[Drawing], val: set[str]) -> Iterator[tuple[str, bytes]]:
    for drawing in drawings:
        split = "val" if drawing.name in val else "train"
        yield f"{split}/images/{drawing.name}.png", drawing.color_png
        yield f"{split}/edge_maps/{drawing.name}.png", drawing.line_png


def _reuse(out: Path, settings: Mapping[str, Any]) -> Summary:
    """The summary of the set in `out`. UserError if it was made with other settings or is incomplete."""
    manifest = set_folder.read_manifest(out, MANIFEST, settings)
    input_types = ("images", "edge_maps")
    set_folder.check_counts(
        out, {f"{split}/{name}": manifest[split] for split in ("train", "val") for name in input_types}
    )
    kept = {key: manifest[key] for key in ("size_px", "version", "train", "val", "left_out")}
    return Summary(out=out, **kept, is_reused=True)
