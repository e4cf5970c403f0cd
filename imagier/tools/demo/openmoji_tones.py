"""Data sets for translation without pairs: the people of the OpenMoji project in yellow, skin tones and paints.

Every base is one drawing in many colorings, so the right answer to a translation is known. Three sets in one folder:

- unit: yellow (images_a) to medium-dark (images_b);
- munit: yellow (images_a) to any of the five tones (images_b/<tone>);
- few_shot: the yellow in 20 paints (images_content/<paint>, images_style/<paint>); four more come in val alone, where
  `images` is the content's drawing in the paint of `images_style`, which is another drawing.

To train on, the first two have one half of the bases in yellow and the other half in tones: no answer is among them. In
val, files of one name belong together. Bases of one family (emoji.families) stand in one split, and in one half.
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from imagier.errors import UserError
from imagier.tools.demo import emoji
from imagier.tools.demo.emoji import SKIN_TONES, Pixels, chance, families, package_svgs

_Choice = TypeVar("_Choice")

MANIFEST = "openmoji_tones.json"

TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
YELLOW, TARGET = "yellow", "medium-dark"
YELLOW_SKIN = "#FCEA2B"
"""The color of skin without a tone, in every drawing."""


def _paints() -> dict[str, str]:
    """Twelve hues, bright and dark: colors of SVG by name."""
    paints = {}
    for kind, saturation, value in (("bright", 0.65, 1.0), ("dark", 0.85, 0.5)):
        for hue in range(0, 360, 30):
            rgb = colorsys.hsv_to_rgb(hue / 360, saturation, value)
            paints[f"{kind}-{hue:03d}"] = "#" + "".join(f"{round(255 * part):02X}" for part in rgb)
    return paints


PAINTS = _paints()
UNSEEN = tuple(name for name in PAINTS if name.endswith(("090", "270")))
"""Held out: no training image is painted so."""
SEEN = tuple(name for name in PAINTS if name not in UNSEEN)

CREDITS = f"""{emoji.CREDITS}\
What was changed: SVG files of emoji that are there in yellow and in all five skin tones were drawn as PNG files of
{{size_px}} x {{size_px}} pixels on a white background, the yellow ones also with other colors in place of the
yellow of skin; all other emoji were left out; the images were put into folders by color and by their part in
training, some of them into more than one. These images are adapted material under the same license.
"""


@dataclass(frozen=True)
class Summary:
    """What a folder made by `render_tones` holds."""

    out: Path
    size_px: int
    version: str
    train: int
    """Bases to train on."""
    val: int
    """Held-out bases."""
    counts: dict[str, int]
    """Images by folder."""
    already_there: bool


@dataclass(frozen=True)
class Base:
    """One drawing in all its colorings: PNG files by tone or paint, and the `thumbnail` of its line art."""

    name: str
    pngs: dict[str, bytes]
    ink: Pixels


@dataclass(frozen=True)
class Split:
    """The bases in three parts, families together."""

    first_half: list[Base]
    second_half: list[Base]
    val: list[list[Base]]
    """Held out, by family."""

    @property
    def held_out(self) -> list[Base]:
        """Those of `val`, one after the other."""
        return [base for family in self.val for base in family]


def render_tones(
    out: Path,
    *,
    size_px: int = 64,
    val_fraction: float = 0.15,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Draws the sets: out/{unit,munit,few_shot}/{train,val}/<type>/[<color>/]<code points>.png, credits and manifest.

    The folder after the type is the tone or paint. Images are 8-bit RGB, size_px (32 to 1024) squared, on white.
    `val_fraction`, in (0, 1), is about the share of the bases that are held out, the same ones in all three sets.
    `workers` processes draw (default: one a core, at most 8).
    `progress(done, total)` is called after each base. The bytes are the same at every call.

    A folder made with the same settings is returned as it is. UserError: `out` holds anything else, a size or
    fraction out of range, or a missing package.
    """
    settings = {"size_px": size_px, "val_fraction": val_fraction}
    emoji.check_numbers(size_px, val_fraction)
    if emoji.is_taken(out):
        return _already_there(out, settings)
    svgs, version = package_svgs()
    found = toned(svgs)
    bases: list[Base] = []
    for base in emoji.draw_all(partial(_draw, size_px=size_px), found, workers):
        bases.append(base)
        if progress is not None:
            progress(len(bases), len(found))
    split = _split(bases, val_fraction)
    files = [*_unit(split), *_munit(split), *_few_shot(split)]
    val = len(split.held_out)
    made = Summary(out, size_px, version, len(bases) - val, val, _by_folder(files), already_there=False)
    manifest = {**settings, "version": version, "train": made.train, "val": val, "counts": made.counts}
    emoji.write_set(out, files, CREDITS.format_map(manifest), MANIFEST, manifest)
    return made


def toned(svgs: Sequence[Path]) -> list[dict[str, Path]]:
    """The drawings that are there in yellow and with each tone as their only one: files by tone, sorted by name."""
    by_drawing: dict[tuple[str, ...], dict[str, Path]] = {}
    for svg in sorted(svgs):
        points = svg.stem.split("-")
        tones = [point for point in points if point in SKIN_TONES]
        # FE0F asks for the colored form of a character; a tone does so, too, and stands in its place.
        drawing = tuple(point for point in points if point not in SKIN_TONES and point != "FE0F")
        if drawing and len(tones) <= 1:
            by_drawing.setdefault(drawing, {})[TONES[tones[0]] if tones else YELLOW] = svg
    whole = [files for files in by_drawing.values() if files.keys() == {YELLOW, *TONES.values()}]
    return sorted(whole, key=lambda files: files[YELLOW].stem)


def _draw(files: Mapping[str, Path], *, size_px: int) -> Base:
    svgs = {tone: path.read_text(encoding="utf-8") for tone, path in files.items()}
    yellow = files[YELLOW]
    for name, color in PAINTS.items():
        svgs[name] = re.sub(YELLOW_SKIN, color, svgs[YELLOW], flags=re.IGNORECASE)
    return Base(
        name=yellow.stem,
        pngs={tone: emoji.encode(emoji.pixels(svg, size_px)) for tone, svg in svgs.items()},
        ink=emoji.thumbnail(emoji.line_art(svgs[YELLOW], str(yellow))),
    )


def _split(bases: Sequence[Base], val_fraction: float) -> Split:
    """Families to val by their hash, as in the default set; the others, in the order of theirs, to the smaller half."""
    by_name = {base.name: base for base in bases}
    split = Split([], [], [])
    for names in sorted(families({base.name: base.ink for base in bases}), key=lambda names: chance("half", names)):
        family = [by_name[name] for name in sorted(names)]
        if chance("val", names) < val_fraction:
            split.val.append(family)
        else:
            min(split.first_half, split.second_half, key=len).extend(family)
    if not split.first_half or not split.second_half or len(split.val) < 2:
        raise UserError(
            f"with val_fraction {val_fraction} a part of the set is empty", where="openmoji", advice="choose another"
        )
    return split


def _unit(split: Split) -> Iterator[tuple[str, bytes]]:
    for base in split.first_half:
        yield f"unit/train/images_a/{base.name}.png", base.pngs[YELLOW]
    for base in split.second_half:
        yield f"unit/train/images_b/{base.name}.png", base.pngs[TARGET]
    for base in split.held_out:
        yield f"unit/val/images_a/{base.name}.png", base.pngs[YELLOW]
        yield f"unit/val/images_b/{base.name}.png", base.pngs[TARGET]


def _munit(split: Split) -> Iterator[tuple[str, bytes]]:
    for base in split.first_half:
        yield f"munit/train/images_a/{base.name}.png", base.pngs[YELLOW]
    for tone in TONES.values():
        for base in split.second_half:
            yield f"munit/train/images_b/{tone}/{base.name}.png", base.pngs[tone]
        for base in split.held_out:
            yield f"munit/val/images_a/{tone}/{base.name}.png", base.pngs[YELLOW]
            yield f"munit/val/images_b/{tone}/{base.name}.png", base.pngs[tone]


def _few_shot(split: Split) -> Iterator[tuple[str, bytes]]:
    for paint in SEEN:
        for base in (*split.first_half, *split.second_half):
            for kind in ("images_content", "images_style"):
                yield f"few_shot/train/{kind}/{paint}/{base.name}.png", base.pngs[paint]
    for paint in UNSEEN:
        for family in split.val:
            strangers = [base for other in split.val if other is not family for base in other]
            for base in family:
                # Another drawing, so that a copy of the style image is no answer.
                style = _drawn(strangers, f"style {paint} {base.name}", base)
                content = _drawn(SEEN, f"content {paint} {base.name}", base)
                yield f"few_shot/val/images_content/{paint}/{base.name}.png", base.pngs[content]
                yield f"few_shot/val/images_style/{paint}/{base.name}.png", style.pngs[paint]
                yield f"few_shot/val/images/{paint}/{base.name}.png", base.pngs[paint]


def _drawn(choices: Sequence[_Choice], purpose: str, base: Base) -> _Choice:
    return choices[int(chance(purpose, [base.name]) * len(choices))]


def _by_folder(files: Sequence[tuple[str, bytes]]) -> dict[str, int]:
    return dict(sorted(Counter("/".join(path.split("/")[:3]) for path, _ in files).items()))


def _already_there(out: Path, settings: Mapping[str, Any]) -> Summary:
    """The summary of the sets in `out`, if they were made with these settings and are whole; else a UserError."""
    manifest = emoji.manifest_of(out, MANIFEST, settings)
    emoji.check_counts(out, manifest["counts"])
    kept = {key: manifest[key] for key in ("size_px", "version", "train", "val", "counts")}
    return Summary(out=out, **kept, already_there=True)
