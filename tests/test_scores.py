"""docs/methods.md: its tables say what the cards of `imagier evaluate` and `imagier metrics` say, for every config."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from imagier.train.card import Card, read_card

ROOT = Path(__file__).parents[1]
CONFIGS = {
    path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in ROOT.glob("configs/*/openmoji*.yaml")
}


def read_table(first_column: str) -> list[list[str]]:
    """The cells of the rows of a table, without their code marks."""
    lines = (ROOT / "docs/methods.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_column} | ")) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def card_of(config: str) -> Card:
    return read_card(ROOT / "docs/cards" / f"{config.replace('/', '_')}.json")


def number(card: Card, values: Mapping[str, float], name: str) -> str:
    """As in the tables. Of a method with two directions, that to the second domain."""
    return f"{values[name if name in card.values else f'{name}_b']:.3g}"


def test_errors_are_those_of_the_cards() -> None:
    rows = read_table("method")
    for _, _, config, *cells, _ in rows:
        card = card_of(config)
        (inputs,) = (
            each for name, each in card.subject["baselines"].items() if name.endswith(("as they are", "as it is"))
        )
        names = ("L1", "L1 changed", "PSNR")
        assert cells == [f"{number(card, card.values, name)} ({number(card, inputs, name)})" for name in names]
    assert {config for _, _, config, *_ in rows} == CONFIGS


def test_distances_of_sets_are_those_of_the_cards() -> None:
    rows = read_table("config")
    for config, count, *cells in rows:
        card = card_of(config)
        counts = card.subject["num_generated"]
        assert count == str(counts if isinstance(counts, int) else counts["b"])
        kd, fd, coverage = (f"{name}-EffLite0" for name in ("KD", "FD", "Coverage"))
        low, high = card.intervals.get(kd) or card.intervals[f"{kd}_b"]
        floor_of = partial(number, card, card.floor)
        assert cells == [
            f"{number(card, card.values, kd)} ± {(high - low) / 2:.1g} ({floor_of(kd)})",
            *(f"{number(card, card.at_floor_sizes, name)} ({floor_of(name)})" for name in (fd, coverage)),
        ]
    assert {row[0] for row in rows} == CONFIGS


def test_scores_of_one_data_set_have_one_protocol() -> None:
    hashes = {config: card_of(config).protocol_hash for config in CONFIGS}
    for one, other in [("spade", "pix2pixHD"), ("funit", "coco_funit")]:
        size = "openmoji64" if one == "spade" else "openmoji_tones64"
        assert hashes[f"{one}/{size}"] == hashes[f"{other}/{size}"]


# Videos

VIDEO_CONFIGS = {
    path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in ROOT.glob("configs/*/vizdoom*.yaml")
}
CLIP_SCORES = ("warp_error", "consistency")
INPUT, REAL = "the flat colors themselves", "the real videos"


def video_card(config: str, kind: str) -> Card:
    name = "colors_vizdoom64" if config == INPUT else config.replace("/", "_")
    return read_card(ROOT / "docs/cards" / f"{name}_{kind}.json")


def test_scores_of_videos_are_those_of_the_cards() -> None:
    rows = read_table("videos of")
    for config, *cells in (row[:6] for row in rows):
        if config == REAL:
            images, clips = video_card(INPUT, "images").floor, video_card(INPUT, "clips").floor
            assert cells == ["-", "-", f"{images['kd']:.3g}", *(f"{clips[name]:.3g}" for name in CLIP_SCORES)]
            continue
        images, clips = (video_card(config, kind).values for kind in ("images", "clips"))
        assert cells == [
            *(f"{images[name]:.3g}" for name in ("l1", "psnr", "kd")),
            *(f"{clips[name]:.3g}" for name in CLIP_SCORES),
        ]
    assert {row[0] for row in rows} == {INPUT, REAL} | VIDEO_CONFIGS


def test_scores_of_videos_have_one_protocol() -> None:
    for kind in ("images", "clips"):
        assert len({video_card(config, kind).protocol_hash for config in {INPUT} | VIDEO_CONFIGS}) == 1


def test_vid2vid_flickers_less_than_single_frames_do() -> None:
    single, video = (video_card(f"{name}/vizdoom64", "clips").values["warp_error"] for name in ("spade", "vid2vid"))
    assert video < single / 2
