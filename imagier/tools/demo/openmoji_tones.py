"""Data sets for unpaired translation: OpenMoji's people in yellow, skin tones and paints.

Every base is one drawing in many colorings, so the correct translation is known. Three sets in one folder:

- unit: yellow (images_a) to medium-dark (images_b);
- munit: yellow (images_a) to any of the five tones (images_b/<tone>);
- few_shot: the yellow in 20 paints (images_content/<paint>, images_style/<paint>); four more come in val alone, where
  `images` is the content's drawing in the paint of `images_style`, which is another drawing.

In training, the first two have one half of the bases in yellow and the other half in tones, so no base occurs in both.
In val, files of the same name belong together. Bases of one family (emoji.group_families) share a split and a half.
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from imagier.errors import UserError
from imagier.run.progress import Update
from imagier.tools.demo import emoji, set_folder
from imagier.tools.demo.emoji import SKIN_TONES, Pixels, find_svgs, group_families, hash_to_fraction

_Choice = TypeVar("_Choice")

MANIFEST = "openmoji_tones.json"

TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
YELLOW, TARGET = "yellow", "medium-dark"
YELLOW_SKIN = "#FCEA2B"
"""The color of skin without a tone, in all drawings."""


def _make_paints() -> dict[str, str]:
    """Twelve hues, bright and dark: SVG colors by name."""
    paints = {}
    for shade, saturation, value in (("bright", 0.65, 1.0), ("dark", 0.85, 0.5)):
        for hue in range(0, 360, 30):
            rgb = colorsys.hsv_to_rgb(hue / 360, saturation, value)
            paints[f"{shade}-{hue:03d}"] = "#" + "".join(f"{round(255 * part):02X}" for part in rgb)
    return paints


PAINTS = _make_paints()
UNSEEN = tuple(name for name in PAINTS if name.endswith(("090", "270")))
"""Held-out paints, which no training image has."""
SEEN = tuple(name for name in PAINTS if name not in UNSEEN)

CREDITS = f"""{emoji.CREDITS}\
What was changed: SVG files of emoji that are there in yellow and in all five skin tones were drawn as PNG files of
{{size_px}} x {{size_px}} pixels on a white background, the yellow ones also with other colors in place of the
yellow of skin; all other emoji were left out; the images were put into folders by color and by their part in
training, some of them into more than one. These images are adapted material under the same license.
"""


@dataclass(frozen=True)
class Summary:
    """The contents of a folder made by `render_tones`."""

    out: Path
    size_px: int
    version: str
    train: int
    """Training bases."""
    val: int
    """Held-out bases."""
    counts: dict[str, int]
    """Images by folder."""
    is_reused: bool


@dataclass(frozen=True)
class Base:
    """One drawing in all colorings: PNG files by tone or paint, and the thumbnail of its line art."""

    name: str
    pngs: dict[str, bytes]
    ink: Pixels


@dataclass(frozen=True)
class Split:
    """The bases in three parts, without dividing families."""

    first_half: list[Base]
    second_half: list[Base]
    val: list[list[Base]]
    """Held out, by family."""

    @property
    def held_out(self) -> list[Base]:
        """The bases of `val`, in one list."""
        return [base for family in self.val for base in family]


def render_tones(
    out: Path,
    *,
    size_px: int = 64,
    val_fraction: float = 0.15,
    workers: int | None = None,
    progress: Update | None = None,
) -> Summary:
    """Draws the sets: out/{unit,munit,few_shot}/{train,val}/<type>/[<color>/]<code points>.png, credits and manifest.

    The folder after the type is the tone or paint. Images are 8-bit RGB, size_px (32 to 1024) squared, on white.
    The bytes are the same at every call.

    val_fraction: approximate share of held-out bases, in (0, 1), the same bases in all three sets. workers: processes
    that draw (default: one per core, at most 8). progress(done, total) is called after each base.

    A folder made with the same settings is kept as it is. UserError if `out` holds anything else, if a size or fraction
    is out of range, or if a package is missing.
    """
    settings = {"size_px": size_px, "val_fraction": val_fraction}
    emoji.check_settings(size_px, val_fraction)
    if set_folder.is_taken(out):
        return _reuse(out, settings)
    svgs, version = find_svgs()
    bases = emoji.draw_all(partial(_draw, size_px=size_px), find_toned(svgs), workers, progress)
    split = _split(bases, val_fraction)
    files = [*_list_unit(split), *_list_munit(split), *_list_few_shot(split)]
    val = len(split.held_out)
    made = Summary(out, size_px, version, len(bases) - val, val, _count_by_folder(files), is_reused=False)
    manifest = {**settings, "version": version, "train": made.train, "val": val, "counts": made.counts}
    emoji.write_set(out, files, CREDITS.format_map(manifest), MANIFEST, manifest)
    return made


def find_toned(svgs: Sequence[Path]) -> list[dict[str, Path]]:
    """The drawings that exist in yellow and in each single tone: files by tone, sorted by name."""
    by_drawing: dict[tuple[str, ...], dict[str, Path]] = {}
    for svg in sorted(svgs):
        points = svg.stem.split("-")
        tones = [point for point in points if point in SKIN_TONES]
        # FE0F requests the colored form of a character; a tone does the same and takes its place.
        drawing = tuple(point for point in points if point not in SKIN_TONES and point != "FE0F")
        if drawing and len(tones) <= 1:
            by_drawing.setdefault(drawing, {})[TONES[tones[0]] if tones else YELLOW] = svg
    complete = [files for files in by_drawing.values() if files.keys() == {YELLOW, *TONES.values()}]
    return sorted(complete, key=lambda files: files[YELLOW].stem)


def _draw(files: Mapping[str, Path], *, size_px: int) -> Base:
    svgs = {tone: path.read_text(encoding="utf-8") for tone, path in files.items()}
    yellow = files[YELLOW]
    for name, color in PAINTS.items():
        svgs[name] = re.sub(YELLOW_SKIN, color, svgs[YELLOW], flags=re.IGNORECASE)
    return Base(
        name=yellow.stem,
        pngs={tone: set_folder.encode_png(emoji.draw_svg(svg, size_px)) for tone, svg in svgs.items()},
        ink=emoji.draw_thumbnail(emoji.extract_line_art(svgs[YELLOW], str(yellow))),
    )


def _split(bases: Sequence[Base], val_fraction: float) -> Split:
    """Puts families into val by their hash, as in the default set; the others, in hash order, into the smaller half."""
    by_name = {base.name: base for base in bases}
    split = Split([], [], [])
    for names in sorted(
        group_families({base.name: base.ink for base in bases}), key=lambda names: hash_to_fraction("half", names)
    ):
        family = [by_name[name] for name in sorted(names)]
        if hash_to_fraction("val", names) < val_fraction:
            split.val.append(family)
        else:
            min(split.first_half, split.second_half, key=len).extend(family)
    if not split.first_half or not split.second_half or len(split.val) < 2:
        raise UserError(
            f"is {val_fraction}, which leaves a part of the set empty",
            where="val_fraction",
            advice="choose another one",
            code="empty-part",
        )
    return split


def _list_unit(split: Split) -> Iterator[tuple[str, bytes]]:
    for base in split.first_half:
        yield f"unit/train/images_a/{base.name}.png", base.pngs[YELLOW]
    for base in split.second_half:
        yield f"unit/train/images_b/{base.name}.png", base.pngs[TARGET]
    for base in split.held_out:
        yield f"unit/val/images_a/{base.name}.png", base.pngs[YELLOW]
        yield f"unit/val/images_b/{base.name}.png", base.pngs[TARGET]


def _list_munit(split: Split) -> Iterator[tuple[str, bytes]]:
    for base in split.first_half:
        yield f"munit/train/images_a/{base.name}.png", base.pngs[YELLOW]
    for tone in TONES.values():
        for base in split.second_half:
            yield f"munit/train/images_b/{tone}/{base.name}.png", base.pngs[tone]
        for base in split.held_out:
            yield f"munit/val/images_a/{tone}/{base.name}.png", base.pngs[YELLOW]
            yield f"munit/val/images_b/{tone}/{base.name}.png", base.pngs[tone]


def _list_few_shot(split: Split) -> Iterator[tuple[str, bytes]]:
    for paint in SEEN:
        for base in (*split.first_half, *split.second_half):
            for input_type in ("images_content", "images_style"):
                yield f"few_shot/train/{input_type}/{paint}/{base.name}.png", base.pngs[paint]
    for paint in UNSEEN:
        for family in split.val:
            others = [base for other in split.val if other is not family for base in other]
            for base in family:
                # Another drawing, so that copying the style image is not a solution.
                style = _choose(others, f"style {paint} {base.name}", base)
                content = _choose(SEEN, f"content {paint} {base.name}", base)
                yield f"few_shot/val/images_content/{paint}/{base.name}.png", base.pngs[content]
                yield f"few_shot/val/images_style/{paint}/{base.name}.png", style.pngs[paint]
                yield f"few_shot/val/images/{paint}/{base.name}.png", base.pngs[paint]


def _choose(choices: Sequence[_Choice], purpose: str, base: Base) -> _Choice:
    return choices[int(hash_to_fraction(purpose, [base.name]) * len(choices))]


def _count_by_folder(files: Sequence[tuple[str, bytes]]) -> dict[str, int]:
    return dict(sorted(Counter("/".join(path.split("/")[:3]) for path, _ in files).items()))


def _reuse(out: Path, settings: Mapping[str, Any]) -> Summary:
    """The summary of the sets in `out`. UserError if they were made with other settings or are incomplete."""
    manifest = set_folder.read_manifest(out, MANIFEST, settings)
    set_folder.check_counts(out, manifest["counts"])
    kept = {key: manifest[key] for key in ("size_px", "version", "train", "val", "counts")}
    return Summary(out=out, **kept, is_reused=True)
