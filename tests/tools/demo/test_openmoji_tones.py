"""Data sets without pairs: which drawings have all tones, what stands where, and what never meets."""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from imagier.cli import data as command
from imagier.errors import UserError
from imagier.tools.demo import emoji, openmoji_tones
from imagier.tools.demo.openmoji_tones import PAINTS, SEEN, TONES, UNSEEN, Summary, find_toned, render_tones

pytest.importorskip("resvg_py")

SKIN = {
    "": "#fcea2b",
    "1F3FB": "#fadcbc",
    "1F3FC": "#debb90",
    "1F3FD": "#c19a65",
    "1F3FE": "#a57939",
    "1F3FF": "#6a462f",
}
"""The colors of the drawings below, those of the project."""
COLORS = {
    "yellow": SKIN[""],
    **{name: SKIN[point] for point, name in TONES.items()},
    **{name: paint.lower() for name, paint in PAINTS.items()},
}
PEOPLE = [f"1F{600 + i}" for i in range(24)]


def svg(seed: int, skin: str) -> str:
    """A square of skin under lines at places of its own."""
    rng = random.Random(seed)
    ends = [" ".join(f'{end}="{rng.randint(6, 66)}"' for end in ("x1", "y1", "x2", "y2")) for _ in range(4)]
    lines = "".join(f'<line {end} fill="none" stroke="#000" stroke-width="7"/>' for end in ends)
    skin = f'<rect x="1" y="1" width="70" height="70" fill="{skin}"/>'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">
      <g id="skin">{skin}</g><g id="line">{lines}</g></svg>"""


def toned_name(base: str, tone: str) -> str:
    head, *tail = base.split("-")
    return "-".join([head, *([tone] if tone else []), *tail])


@pytest.fixture(scope="module")
def svgs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Stands in for the package: people alone, in both sexes, without a tone, with two tones, and a thing."""
    folder = tmp_path_factory.mktemp("svg")
    texts = {"2600": svg(90, "#fff"), "1F46D-1F3FB-200D-1F3FC": svg(91, "#fff"), "1F3FB": svg(92, "#fff")}
    for seed, base in enumerate(PEOPLE):
        for number, suffix in enumerate(("", "-200D-2640-FE0F")):
            for tone, skin in SKIN.items():
                texts[toned_name(base + suffix, tone)] = svg(2 * seed + number, skin)
    texts |= {toned_name("1F900", tone): svg(93, "#fff") for tone in list(SKIN)[:-1]}
    texts |= {toned_name("261D-FE0F", ""): svg(94, SKIN[""])}
    texts |= {toned_name("261D", tone): svg(94, skin) for tone, skin in SKIN.items() if tone}
    for name, text in texts.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return sorted(folder.glob("*.svg"))


@pytest.fixture(autouse=True)
def package(svgs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmoji_tones, "find_svgs", lambda: (svgs, "17.0.0"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, svgs: list[Path]) -> Iterator[Summary]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openmoji_tones, "find_svgs", lambda: (svgs, "17.0.0"))
        yield render_tones(tmp_path_factory.mktemp("made") / "set", size_px=32, val_fraction=0.3, workers=1)


def images(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.png")}


def stems(folder: Path) -> set[str]:
    return {path.stem for path in folder.rglob("*.png")}


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]


def color(path: Path) -> str:
    """The most frequent color of an image that is no black or white."""
    found, counts = np.unique(read(path).reshape(-1, 3), axis=0, return_counts=True)
    return "#" + "".join(f"{value:02x}" for value in found[counts.argmax()])


def test_a_drawing_counts_if_it_is_there_in_yellow_and_with_each_tone_as_its_only_one(svgs: list[Path]) -> None:
    names = {files["yellow"].stem for files in find_toned(svgs)}
    assert names == {base + suffix for base in PEOPLE for suffix in ("", "-200D-2640-FE0F")} | {"261D-FE0F"}
    (hand,) = [files for files in find_toned(svgs) if files["yellow"].stem == "261D-FE0F"]
    assert {tone: path.stem for tone, path in hand.items()} == {
        "yellow": "261D-FE0F",
        **{name: f"261D-{point}" for point, name in TONES.items()},
    }


def test_every_folder_shows_the_tone_that_it_is_named_after(made: Summary) -> None:
    shown = {"unit/train/images_a": "yellow", "unit/val/images_a": "yellow", "munit/train/images_a": "yellow"} | {
        "munit/val/images_a": "yellow",
        "unit/train/images_b": "medium-dark",
        "unit/val/images_b": "medium-dark",
    }
    for folder in made.counts.keys() - {"few_shot/val/images_content"}:
        for name, path in list(images(made.out / folder).items())[::3]:
            assert color(path) == COLORS[shown.get(folder, name.split("/")[0])], path


def test_images_are_as_large_as_asked_for_and_counted(made: Summary) -> None:
    assert {folder: len(images(made.out / folder)) for folder in made.counts} == made.counts
    assert sum(made.counts.values()) == len(list(made.out.rglob("*.png")))
    assert {read(path).shape for path in made.out.rglob("*.png")} == {(32, 32, 3)}


@pytest.mark.parametrize("name", ["unit", "munit"])
def test_no_drawing_to_train_on_stands_on_both_sides_and_the_halves_are_of_a_size(made: Summary, name: str) -> None:
    a, b = (stems(made.out / name / "train" / kind) for kind in ("images_a", "images_b"))
    assert not a & b
    assert len(a | b) == made.train
    assert abs(len(a) - len(b)) <= 2
    families = [{base.split("-")[0] for base in side} for side in (a, b)]
    assert not families[0] & families[1]


def test_the_held_out_drawings_are_the_same_in_all_sets_and_strange_to_training(made: Summary) -> None:
    names = ("unit", "munit", "few_shot")
    held_out = [stems(made.out / name / "val") for name in names]
    assert held_out[0] == held_out[1] == held_out[2]
    assert len(held_out[0]) == made.val
    families = {base.split("-")[0] for base in held_out[0]}
    for name in names:
        assert not families & {base.split("-")[0] for base in stems(made.out / name / "train")}


def lines(path: Path) -> bytes:
    """Where an image is all black: its drawing, whatever the color of the skin."""
    return (read(path).max(axis=2) == 0).tobytes()


@pytest.mark.parametrize("name", ["unit", "munit"])
def test_held_out_files_of_one_name_are_one_drawing(made: Summary, name: str) -> None:
    a, b = (images(made.out / name / "val" / kind) for kind in ("images_a", "images_b"))
    assert a.keys() == b.keys()
    for key in a:
        assert lines(a[key]) == lines(b[key])
    if name == "munit":
        assert {key.split("/")[0] for key in b} == set(TONES.values())


def test_few_shot_training_never_sees_the_paints_that_are_held_out(made: Summary) -> None:
    train = made.out / "few_shot" / "train"
    content, style = (images(train / kind) for kind in ("images_content", "images_style"))
    assert content.keys() == style.keys()
    assert {key.split("/")[0] for key in content} == set(SEEN)
    assert (len(SEEN), len(UNSEEN)) == (20, 4)
    assert not {COLORS[paint] for paint in UNSEEN} & {color(path) for path in content.values()}


def test_few_shot_answers_are_the_contents_drawing_and_styles_are_strangers(made: Summary) -> None:
    val = made.out / "few_shot" / "val"
    content, style, answer = (images(val / kind) for kind in ("images_content", "images_style", "images"))
    assert content.keys() == style.keys() == answer.keys()
    assert {key.split("/")[0] for key in answer} == set(UNSEEN)
    assert {color(path) for path in content.values()} <= {COLORS[paint] for paint in SEEN}
    drawings = {lines(path): path.stem for path in answer.values()}
    for key in content:
        assert lines(content[key]) == lines(answer[key])
        its_family, other_family = (drawings[lines(path)].split("-")[0] for path in (content[key], style[key]))
        assert its_family != other_family


def test_a_second_rendering_by_more_processes_gives_the_same_bytes(made: Summary, tmp_path: Path) -> None:
    again = render_tones(tmp_path / "again", size_px=32, val_fraction=0.3, workers=2)

    def files(root: Path) -> dict[str, bytes]:
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert files(made.out) == files(again.out)


def test_a_second_call_draws_nothing_and_tells_the_same(made: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(openmoji_tones, "_draw")
    second = render_tones(made.out, size_px=32, val_fraction=0.3)
    assert second.is_reused
    assert (second.train, second.val, second.counts) == (made.train, made.val, made.counts)


def test_a_folder_made_otherwise_or_incomplete_or_foreign_is_refused(tmp_path: Path) -> None:
    mine = render_tones(tmp_path / "mine", size_px=32, val_fraction=0.3, workers=1)
    with pytest.raises(UserError, match="size_px 32, not 64"):
        render_tones(mine.out, val_fraction=0.3)
    next((mine.out / "munit/train/images_b").rglob("*.png")).unlink()
    count = mine.counts["munit/train/images_b"]
    with pytest.raises(UserError, match=f"{count - 1} images instead of {count}") as caught:
        render_tones(mine.out, size_px=32, val_fraction=0.3)
    assert (caught.value.where, caught.value.code) == (str(mine.out / "munit/train/images_b"), "incomplete-set")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(UserError) as caught:
        render_tones(tmp_path / "other")
    assert caught.value.code == "other-data"


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_tones(tmp_path / "set", size_px=32, workers=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    real, calls = Path.write_bytes, []

    def full_disk(self: Path, content: bytes) -> int:
        calls.append(self)
        if len(calls) == 10:
            raise OSError("no space left on device")
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        render_tones(tmp_path / "set", size_px=32, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_held_out_drawings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        render_tones(tmp_path / "set", size_px=32, val_fraction=0.0001, workers=1)
    assert (caught.value.where, caught.value.code) == ("val_fraction", "empty-part")


def test_the_credit_names_project_license_version_and_changes(made: Summary) -> None:
    credit = (made.out / "CREDITS.txt").read_text(encoding="utf-8")
    for part in ("designed by OpenMoji", "CC BY-SA 4.0", "licenses/by-sa/4.0", "17.0.0", "32 x 32", "was changed"):
        assert part in credit


def test_the_command_prints_one_line_of_progress_and_one_of_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagier")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    out = tmp_path / "tones"
    assert command.run(parser.parse_args(["openmoji-tones", "--size", "32", "--out", str(out), "--workers", "1"])) == 0
    (summary,) = capsys.readouterr().out.splitlines()
    manifest = json.loads((out / "openmoji_tones.json").read_text(encoding="utf-8"))
    count = sum(manifest["counts"].values())
    assert caplog.messages == ["drawing emoji in all colors at 32 px: 49 of them"]
    bases = f"{manifest['train']} train + {manifest['val']} val emoji"
    assert summary.startswith(f"{out}: {count} images of {bases}, in ")


@pytest.mark.slow
def test_tones_can_be_told_apart_in_the_whole_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmoji_tones, "find_svgs", emoji.find_svgs)
    whole = render_tones(tmp_path / "whole")
    assert whole.train > 250
    assert 0.08 < whole.val / (whole.train + whole.val) < 0.25
    light, dark = (images(whole.out / "few_shot/train/images_style" / tone) for tone in ("bright-000", "dark-120"))
    changed = [(np.abs(read(light[name]).astype(int) - read(dark[name])).max(axis=2) > 60).sum() for name in light]
    assert np.quantile(changed, 0.02) > 20  # of 4096 pixels
    assert np.median(changed) > 150
